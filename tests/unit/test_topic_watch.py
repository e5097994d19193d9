"""Waiting for records: what one question may cost, whoever waits, and that nothing is left of those who did."""

import asyncio
from collections.abc import Sequence

import pytest

from qstash_clone.errors import StorageUnavailable
from qstash_clone.storage.topic_watch import ASK_TOGETHER, Log, TopicWatch
from tests.support.eventually import eventually


class Ends:
    """Answers questions, and notes what was asked and how long the pauses were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[int] = []
        self.pauses_s: list[float] = []
        self.ends: dict[Log, int | None] = {}
        self.error: StorageUnavailable | None = None
        sleep = asyncio.sleep

        async def pause(duration_s: float) -> None:
            self.pauses_s.append(duration_s)
            await sleep(0)

        monkeypatch.setattr(asyncio, "sleep", pause)

    async def ask(self, logs: Sequence[Log]) -> list[int | None]:
        self.asked.append(len(logs))
        if self.error is not None:
            raise self.error
        return [self.ends.get(log, 0) for log in logs]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    return Ends(monkeypatch)


def logs(count: int) -> list[tuple[Log, int]]:
    return [(("orders", number), 0) for number in range(count)]


async def test_many_logs_are_asked_for_less_often_and_a_few_at_a_time(ends: Ends) -> None:
    watch = TopicWatch(ends.ask)
    await watch.wait(logs(1000), 0.05)
    assert max(ends.asked) == ASK_TOGETHER
    assert min(ends.pauses_s) == 0.2


async def test_few_logs_are_asked_for_forty_times_a_second(ends: Ends) -> None:
    await TopicWatch(ends.ask).wait(logs(100), 0.02)
    assert set(ends.pauses_s) == {0.025}


@pytest.mark.parametrize("end", [1, None])
async def test_a_record_in_the_last_of_many_logs_is_seen(ends: Ends, end: int | None) -> None:
    ends.ends["orders", 999] = end
    await asyncio.wait_for(TopicWatch(ends.ask).wait(logs(1000), 30), 5)


async def test_who_waits_is_told_that_the_store_is_away(ends: Ends) -> None:
    ends.error = StorageUnavailable("away")
    watch = TopicWatch(ends.ask)
    outcomes = await asyncio.gather(*(watch.wait(logs(3), 30) for _ in range(3)), return_exceptions=True)
    assert outcomes == [ends.error] * 3
    ends.error = None
    ends.ends["orders", 1] = 7
    await asyncio.wait_for(watch.wait(logs(3), 30), 5)


async def test_nothing_is_left_of_those_who_waited(ends: Ends) -> None:
    watch = TopicWatch(ends.ask)
    before = asyncio.all_tasks()
    waits = [asyncio.ensure_future(watch.wait(logs(number), 30)) for number in (1, 2, 3)]
    await eventually(lambda: bool(ends.asked))
    watch.reached(("orders", 2), 1)
    await waits[2]
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await eventually(lambda: asyncio.all_tasks() == before)
    watch.reached(("orders", 0), 1)

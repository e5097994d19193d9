"""What a call costs does not depend on how much is waiting: the same commands with an empty and with a full store."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from qstash_clone.domain.message import Claim
from qstash_clone.storage.store import Store
from tests.storage.conftest import MoveClock
from tests.support.messages import claim_all, dead_letter, delivered, failed, new_message, publish, retry
from tests.support.meter import FORBIDDEN, Meter
from tests.support.schedules import new_schedule, plan_one

BACKLOG = 20_000
YEARLY = "0 0 1 1 *"
MOST_UNPARKED = 64


@pytest.fixture
def meter(redis_client: Any, store: Store) -> Meter:
    return Meter(redis_client)


async def fill(store: Store, count: int) -> None:
    """Backlogs of every kind: in one lane, in many, in the timers."""
    for start in range(0, count, 1000):
        await asyncio.gather(
            *(
                publish(store, body=b"", lane="h:deep" if n % 3 else f"h:{n}", delay_ms=86_400_000 * (n % 2))
                for n in range(start, start + min(1000, count))
            )
        )


async def every_step(store: Store, meter: Meter) -> dict[str, Counter[str]]:
    """The commands of each step of a worker that has always more to do."""
    used: dict[str, Counter[str]] = {}
    claims: list[Claim] = []

    async def measure(name: str, step: Callable[[], Awaitable[object]]) -> None:
        used[name] = await meter.count(step)

    async def claim() -> None:
        while not (found := await claim_all(store, limit=1)):
            pass  # a doorbell
        claims.extend(found)

    await measure("publish", lambda: publish(store, lane="h:deep"))
    await measure("publish to an idle host", lambda: publish(store, lane=f"h:{uuid4()}"))
    delayed = new_message(store, delay_ms=100)
    await measure("publish for later", lambda: store.publishing.publish(delayed))
    await measure("cancel", lambda: store.admin.cancel(delayed.id))
    await measure("get", lambda: store.admin.get_message(delayed.id))
    await measure("claim", claim)
    await measure("extend", lambda: store.delivery.extend(0, "w1", claims))
    await measure("settle", lambda: store.delivery.settle(retry(claims[0], delay_ms=0)))
    await measure("promote", lambda: store.delivery.promote(0, 10))
    await claim()
    await measure("settle for good", lambda: store.delivery.settle(failed(claims[1])))
    [entry] = (await store.admin.list_dead_letters(cursor=None, count=1, newest_first=True)).entries
    await measure("list dead letters", lambda: store.admin.list_dead_letters(cursor=None, count=1, newest_first=True))
    await measure("retry dead letter", lambda: store.admin.retry_dead_letter(entry.dlq_id))
    await claim()
    await measure("release", lambda: store.delivery.release([claims[2]]))
    await measure("expire", lambda: store.delivery.expire(0, 500))
    await measure("stats", lambda: store.admin.stats())
    await measure("heartbeat", lambda: store.delivery.heartbeat("w1", 40))
    return used


async def test_no_step_costs_more_with_a_backlog(store: Store, meter: Meter) -> None:
    await store.delivery.heartbeat("w1", 40)
    await fill(store, 300)
    await every_step(store, meter)
    few = await every_step(store, meter)
    await fill(store, BACKLOG)
    many = await every_step(store, meter)
    assert (await store.admin.stats()).lanes_waiting > 3_000
    # A heartbeat gives turns until the room is used up; how many are refused depends on who comes first.
    assert many.pop("heartbeat").total() < 5 * MOST_UNPARKED
    assert few.pop("heartbeat").total() < 5 * MOST_UNPARKED
    for name, commands in many.items():
        # Which lane's turn it is may add a command or two: its last message, or one of many.
        assert abs(commands.total() - few[name].total()) <= 3, (name, commands - few[name], few[name] - commands)
        assert not commands.keys() & FORBIDDEN, name


@pytest.mark.parametrize(
    ("step", "most"),
    [("publish", 15), ("claim", 12), ("settle", 24), ("promote", 17), ("cancel", 18), ("extend", 5)],
)
async def test_what_one_message_alone_costs(store: Store, meter: Meter, step: str, most: int) -> None:
    await every_step(store, meter)
    used = await every_step(store, meter)
    assert used[step].total() <= most, used[step]
    assert used[step]["evalsha"] == 1


async def test_a_group_is_one_call(store: Store, meter: Meter) -> None:
    await store.delivery.heartbeat("w1", 1000)
    await publish(store)
    await dead_letter(store)
    used = await meter.count(lambda: asyncio.gather(*(publish(store) for _ in range(100))))
    assert used["evalsha"] == 1
    claims = await claim_all(store)
    used = await meter.count(
        lambda: asyncio.gather(*(store.delivery.settle(delivered(claim)) for claim in claims[:100]))
    )
    assert used["evalsha"] == 1


async def every_step_of_a_schedule(store: Store, meter: Meter, move_clock: MoveClock) -> dict[str, Counter[str]]:
    """The commands of each step of a schedule's life; only `own` ever becomes due."""
    used: dict[str, Counter[str]] = {}
    schedules, own = store.schedules, new_schedule("own", cron="* * * * *")

    async def measure(name: str, step: Callable[[], Awaitable[object]]) -> None:
        used[name] = await meter.count(step)

    await measure("create", lambda: schedules.put_schedule(own))
    await measure("overwrite", lambda: schedules.put_schedule(own))
    await measure("get", lambda: schedules.get_schedule("own"))
    await measure("pause", lambda: schedules.set_schedule_paused("own", True))
    await measure("resume", lambda: schedules.set_schedule_paused("own", False))
    await measure("look", lambda: schedules.due_schedules(0, 100, 0.5))
    await move_clock(60_000)
    firing = await plan_one(store)
    await measure("look at a due one", lambda: schedules.due_schedules(0, 100, 0.5))
    await measure("fire", lambda: schedules.fire([firing]))
    await measure("put off", lambda: schedules.postpone(firing.stored, 1_000))
    await measure("delete", lambda: schedules.delete_schedule("own"))
    return used


async def test_no_step_of_a_schedule_costs_more_with_many(store: Store, meter: Meter, move_clock: MoveClock) -> None:
    async def fill_schedules(count: int) -> None:
        for start in range(0, count, 100):
            names = [f"{count}-{start + number}" for number in range(100)]
            await asyncio.gather(*(store.schedules.put_schedule(new_schedule(name, cron=YEARLY)) for name in names))

    await fill_schedules(100)
    await every_step_of_a_schedule(store, meter, move_clock)
    few = await every_step_of_a_schedule(store, meter, move_clock)
    await fill_schedules(4_000)
    many = await every_step_of_a_schedule(store, meter, move_clock)
    for name, commands in many.items():
        # An instant may pass between two tries of a change, which is then made again.
        assert abs(commands.total() - few[name].total()) <= 10, (name, commands - few[name], few[name] - commands)
        assert not commands.keys() & FORBIDDEN, name
    assert few["fire"]["evalsha"] == 1

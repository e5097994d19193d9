"""What measures compute from what they saw, and what they send."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest

from bench.backlog import keyed, plain, queued
from bench.counting import same_commands, total
from bench.draining import drain_round
from bench.engine import Engine
from bench.measures.flow_control import windows_of
from bench.measures.schedules import alike, different, far_away
from bench.processes import Usage
from bench.publishing import PublishRound, beside, check_stored
from bench.report import BenchFailure
from bench.tools.samples import BODY, HEADERS, batch_request, destination, publish_request
from qstash_clone.domain.cron import parse_cron

URL = destination(54321)
CALM = Usage(wall_s=2.0, processor_s={"api": 1.0, "worker": 1.0, "redis": 0.5}, machine_share=0.5)


def test_a_batch_carries_the_message_of_a_publish_so_often() -> None:
    single, batch = publish_request(80, "token", URL), batch_request(80, "token", URL, 3)
    head, _, body = batch.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    items: list[dict[str, Any]] = msgspec.json.decode(body)
    assert len(items) == 3
    assert single.endswith(b"\r\n\r\n" + BODY)
    for item in items:
        assert (item["destination"], item["body"].encode()) == (URL, BODY)
        assert [f"{name}: {value}".encode() in single for name, value in item["headers"].items()] == [True, True]


def test_an_enqueue_differs_from_a_publish_in_its_path_alone() -> None:
    enqueue = publish_request(80, "token", URL, path="enqueue/orders")
    assert enqueue == publish_request(80, "token", URL).replace(b"/v2/publish/", b"/v2/enqueue/orders/", 1)


def test_kinds_spread_messages_over_lanes() -> None:
    assert {plain(URL)(number)[1] for number in range(9)} == {"h:127.0.0.1:54321"}
    assert [queued(URL, 2)(number)[1] for number in range(3)] == ["q:queue-0", "q:queue-1", "q:queue-0"]
    message, lane = keyed(URL, 3, rate=5, period_s=7)(4)
    assert lane == "f:key-1"
    assert message.headers == HEADERS
    assert message.extras is not None
    assert message.extras.flow_control is not None
    assert (message.extras.flow_control.key, message.extras.flow_control.rate) == ("key-1", 5)


def test_windows_begin_with_the_first_attempt_after_the_last_one_is_over() -> None:
    assert windows_of([0, 10, 999, 1000, 1500, 2001], 1000) == [[0, 10, 999], [1000, 1500], [2001]]
    assert windows_of([], 1000) == []


def test_commands_have_to_be_the_same_ones() -> None:
    few = {"publish": {"set": 1.0, "time": 1.0}, "claim": {"get": 2.0}}
    same = same_commands("m", "x", few, few, 1000, "nothing")
    assert (total(few), same.value, same.is_within_budget) == (4, 4, True)
    assert same.note == "publish 2, claim 2; 1,000 waiting; reference: nothing"
    more = same_commands("m", "x", few | {"claim": {"get": 2.5}}, few, 1000, "nothing")
    assert more.is_within_budget is False
    assert more.note.endswith("; differ: claim get 2.5 / 2")


def test_a_drain_counts_from_the_first_arrival_to_the_last() -> None:
    made = drain_round([3_000_000_000, 1_000_000_000, 2_000_000_000], CALM, "worker", 7)
    assert (made.per_second, made.most_connections) == (1.0, 7)
    assert made.sender_us == pytest.approx(1e6 / 3)


def test_many_messages_in_a_request_are_compared_by_the_message() -> None:
    batch = PublishRound(per_second=6000, api_us=20, redis_us=10, usage=CALM)
    single = PublishRound(per_second=1000, api_us=80, redis_us=20, usage=CALM)
    rate, processor = beside("batch", "batches", "single ones", [(batch, single)], floor=5)
    assert (rate.ratio, rate.is_within_budget) == (6, True)
    assert processor.ratio == 4
    assert "Redis besides 10 µs, 20 for the reference" in processor.note


class StoredIds:
    """An engine of which only the messages are asked for."""

    def __init__(self, created: int, missing: int = 0) -> None:
        self._created, self._missing = created, missing

    def created(self) -> int:
        return self._created

    def missing(self, message_ids: Sequence[str]) -> int:
        return self._missing


@pytest.mark.parametrize(
    ("engine", "message_ids"),
    [(StoredIds(12), ["a"]), (StoredIds(12), ["a", "a"]), (StoredIds(12, missing=1), ["a", "b"])],
    ids=["too many", "an id twice", "one missing"],
)
def test_what_is_not_stored_exactly_once_fails_the_run(engine: Any, message_ids: list[str]) -> None:
    assert check_stored(cast("Engine", StoredIds(11)), ["a"], 10) == 11
    with pytest.raises(BenchFailure, match="were acknowledged"):
        check_stored(engine, message_ids, 10)


def test_schedules_that_wait_differ() -> None:
    assert len({far_away(number) for number in range(40_320)}) == 40_320


@pytest.mark.parametrize("day", [datetime(2026, 8, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)])
def test_schedules_that_are_due_at_once_differ_and_begin_with_the_day(day: datetime) -> None:
    assert len({different(number, day) for number in range(39_353)}) == 39_353
    day_ms = round(day.timestamp() * 1000)
    for expression in (alike(0, day), *(different(number, day) for number in range(0, 39_353, 97))):
        assert parse_cron("x", expression).next_after(day_ms - 86_399_000) == day_ms

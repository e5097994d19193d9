"""Schedules: what a publish with a cron expression defines, and what becomes of one that is due."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from qstash_clone.domain.cron import parse_cron
from qstash_clone.domain.destination import GroupDestination, UrlDestination
from qstash_clone.domain.headers import PublishOptions
from qstash_clone.domain.message import CallbackSpec, Extras, FlowControl, Message, Redaction
from qstash_clone.domain.schedules import (
    Firing,
    Schedule,
    StoredSchedule,
    firing_ids,
    messages_of,
    parsed_cron,
    plan_firing,
    plan_schedule,
)
from qstash_clone.domain.url_groups import Endpoint, UrlGroup
from qstash_clone.domain.urls import origin_of
from qstash_clone.errors import InvalidRequest, NotFound
from qstash_clone.ids import BUCKETS, MessageId, bucket_of

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
NOON_MS = 1_767_268_800_000
"""2026-01-01T12:00Z."""
URL = "https://receiver.example/path"
GROUP = UrlGroup(
    name="orders",
    created_ms=1,
    updated_ms=1,
    endpoints=(Endpoint(url="https://a.example/x", name="billing dept"), Endpoint(url="http://b.example:81")),
)
OPTIONS = PublishOptions(
    method="PUT",
    headers=(("X", "1"),),
    max_retries=5,
    timeout_ms=30_000,
    retry_delay_expression="retried",
    delay_ms=10_000,
    not_before_ms=None,
    labels=("a",),
    callback=CallbackSpec(url="https://callback.example"),
    failure_callback=CallbackSpec(url="https://failed.example"),
    redaction=Redaction(body=True),
    flow_control=FlowControl(key="k", rate=1),
    cron=parse_cron("Upstash-Cron", " 0 * * * * "),
    schedule_id="mine",
    queue="jobs",
)


def url_destination(url: str = URL) -> UrlDestination:
    return UrlDestination(url, origin_of(url))


def plan(destination: UrlDestination | GroupDestination, group: UrlGroup | None = None, **changes: Any) -> Schedule:
    options = msgspec.structs.replace(OPTIONS, **changes)
    return plan_schedule("scd_new", destination, options, b"body", "10.0.0.1", group=group)


# Definition


def test_everything_of_the_publish_is_kept() -> None:
    assert plan(url_destination()) == Schedule(
        id="mine",
        cron="0 * * * *",
        message=Message(
            url=URL,
            method="PUT",
            headers=(("X", "1"),),
            caller_ip="10.0.0.1",
            max_retries=5,
            timeout_ms=30_000,
            retry_delay_expression="retried",
            labels=("a",),
            extras=Extras(
                callback=OPTIONS.callback,
                failure_callback=OPTIONS.failure_callback,
                redaction=OPTIONS.redaction,
                flow_control=OPTIONS.flow_control,
                schedule_id="mine",
            ),
        ),
        body=b"body",
        delay_ms=10_000,
        queue="jobs",
    )


def test_who_names_no_id_gets_one() -> None:
    schedule = plan(url_destination(), schedule_id=None)
    assert (schedule.id, (schedule.message.extras or Extras()).schedule_id) == ("scd_new", "scd_new")


@pytest.mark.parametrize("endpoints", [GROUP.endpoints, ()])
def test_a_url_group_is_named_and_not_resolved(endpoints: tuple[Endpoint, ...]) -> None:
    group = msgspec.structs.replace(GROUP, endpoints=endpoints)
    schedule = plan(GroupDestination(name="orders"), group)
    assert (schedule.url_group, schedule.destination, schedule.message.url) == ("orders", "orders", "")


def test_the_destination_of_a_url_is_the_url() -> None:
    schedule = plan(url_destination())
    assert (schedule.url_group, schedule.destination) == (None, URL)
    bare = Schedule(id="s", cron="* * * * *", message=Message(url=URL))
    assert (bare.url_group, bare.destination, bare.limited_lanes) == (None, URL, ())


def test_its_lanes_are_those_of_its_messages_and_their_callbacks() -> None:
    callback = CallbackSpec(url="https://callback.example", flow_control=FlowControl(key="c", rate=1))
    schedule = plan(url_destination(), callback=callback)
    assert schedule.limited_lanes == ("q:jobs", "f:k", "f:c")


@pytest.mark.parametrize(
    ("destination", "changes", "error", "text"),
    [
        (url_destination(), {"cron": None}, InvalidRequest, "Upstash-Cron: missing"),
        (url_destination(), {"not_before_ms": 1}, InvalidRequest, "Upstash-Not-Before: not possible together"),
        (GroupDestination(name="none"), {}, NotFound, "topic none not found"),
    ],
)
def test_what_is_refused(
    destination: UrlDestination | GroupDestination, changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        plan(destination, **changes)


def test_a_schedule_for_an_api_shows_its_name_and_calls_its_url() -> None:
    schedule = plan_schedule("scd_new", url_destination(), OPTIONS, b"body", "10.0.0.1", api="llm")
    assert (schedule.destination, schedule.message.url) == ("api/llm", URL)
    [message] = messages_of(schedule, None, NOON_MS, [MessageId(bytes(12))])
    assert message.message.extras is not None
    assert message.message.extras.api == "llm"


# Messages and their ids


def ids_of(stored: StoredSchedule, instant_ms: int, urls: Sequence[str]) -> list[MessageId]:
    return firing_ids(stored.schedule.id, stored.revision, instant_ms, urls, 0, BUCKETS)


def test_a_message_for_the_url() -> None:
    schedule = plan(url_destination())
    [message] = messages_of(schedule, None, NOON_MS, [MessageId(bytes(12))])
    assert (message.id, message.message, message.body) == (bytes(12), schedule.message, b"body")
    assert (message.lane, message.not_before_ms, message.delay_ms) == ("q:jobs f:k", NOON_MS + 10_000, 0)
    assert message.deduplication is None


@pytest.mark.parametrize(
    ("queue", "flow_control", "lane"),
    [(None, None, "h:receiver.example"), ("jobs", None, "q:jobs"), (None, OPTIONS.flow_control, "f:k")],
)
def test_a_message_waits_where_its_options_say(queue: str | None, flow_control: FlowControl | None, lane: str) -> None:
    schedule = plan(url_destination(), queue=queue, flow_control=flow_control)
    assert messages_of(schedule, None, NOON_MS, [MessageId(bytes(12))])[0].lane == lane


def test_a_message_for_each_endpoint() -> None:
    schedule = plan(GroupDestination(name="orders"), GROUP, queue=None, flow_control=None)
    first, second = messages_of(schedule, GROUP, NOON_MS, [MessageId(b"1" * 12), MessageId(b"2" * 12)])
    assert [(message.id, message.message.url, message.lane) for message in (first, second)] == [
        (b"1" * 12, "https://a.example/x", "h:a.example"),
        (b"2" * 12, "http://b.example:81", "h:b.example:81"),
    ]
    assert [(message.message.extras or Extras()).endpoint_name for message in (first, second)] == ["billing dept", None]
    assert (second.message.extras or Extras()).url_group == "orders"
    assert (second.message.extras or Extras()).schedule_id == "mine"


def test_a_group_may_be_published_to_without_extras() -> None:
    schedule = Schedule(id="s", cron="* * * * *", message=Message(url=""))
    ids = [MessageId(b"1" * 12), MessageId(b"2" * 12)]
    assert [message.message.url for message in messages_of(schedule, GROUP, NOON_MS, ids)] == [
        endpoint.url for endpoint in GROUP.endpoints
    ]


def test_ids_are_derived_and_differ_in_everything() -> None:
    ids = firing_ids("s", 1, NOON_MS, [URL, "https://other.example"], 0, BUCKETS)
    assert ids == firing_ids("s", 1, NOON_MS, [URL, "https://other.example"], 0, BUCKETS)
    others = [
        *firing_ids("t", 1, NOON_MS, [URL], 0, BUCKETS),
        *firing_ids("s", 2, NOON_MS, [URL], 0, BUCKETS),
        *firing_ids("s", 1, NOON_MS + MINUTE_MS, [URL], 0, BUCKETS),
    ]
    assert len({*ids, *others}) == 5
    assert {len(message_id) for message_id in ids} == {12}


def test_an_endpoint_keeps_its_id_when_others_come_and_go() -> None:
    """A firing may be begun with one state of its group and ended with another."""
    before = firing_ids("s", 1, NOON_MS, ["https://a", "https://b"], 0, BUCKETS)
    after = firing_ids("s", 1, NOON_MS, ["https://c", "https://b", "https://a"], 0, BUCKETS)
    assert after[1:] == before[::-1]
    assert after[0] not in before


def test_the_same_url_twice_makes_two_messages() -> None:
    assert len(set(firing_ids("s", 1, NOON_MS, ["https://a", "https://a", "https://b"], 0, BUCKETS))) == 3


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 2048), (2048, 2048), (4095, 1), (1366, 1365)])
def test_ids_are_in_their_buckets(first: int, count: int) -> None:
    for message_id in firing_ids("s", 1, NOON_MS, [f"https://{number}" for number in range(50)], first, count):
        assert first <= bucket_of(message_id) < first + count


# What is due


def due(cron: str = "0 * * * *", at_ms: int = NOON_MS, **changes: Any) -> StoredSchedule:
    """A schedule whose next fire time is noon."""
    schedule = msgspec.structs.replace(plan(url_destination()), cron=cron, **changes)
    return StoredSchedule(schedule=schedule, created_ms=0, revision=7, next_fire_ms=at_ms)


def planned(
    stored: StoredSchedule, late_ms: int = 0, group: UrlGroup | None = None, max_lateness_ms: int | None = None
) -> Firing:
    return plan_firing(stored, group, now_ms=NOON_MS + late_ms, max_lateness_ms=max_lateness_ms, new_ids=ids_of)


@pytest.mark.parametrize("late_ms", [0, 1, HOUR_MS - 1])
def test_the_due_instant_fires(late_ms: int) -> None:
    stored = due()
    firing = planned(stored, late_ms)
    assert (firing.instant_ms, firing.next_fire_ms, firing.has_missed) == (NOON_MS, NOON_MS + HOUR_MS, False)
    assert [message.id for message in firing.messages] == ids_of(stored, NOON_MS, [URL])
    assert (firing.stored, firing.is_too_late, firing.error) == (stored, False, None)


def test_of_several_due_instants_the_newest_fires() -> None:
    stored = due()
    firing = planned(stored, 5 * HOUR_MS + 1)
    assert (firing.instant_ms, firing.next_fire_ms) == (NOON_MS + 5 * HOUR_MS, NOON_MS + 6 * HOUR_MS)
    assert firing.has_missed
    assert [message.not_before_ms for message in firing.messages] == [NOON_MS + 5 * HOUR_MS + 10_000]
    assert [message.id for message in firing.messages] == ids_of(stored, NOON_MS + 5 * HOUR_MS, [URL])


@pytest.mark.parametrize("late_ms", [0, 1])
def test_an_instant_may_be_too_old_to_be_made_up_for(late_ms: int) -> None:
    firing = planned(due(), 2 * HOUR_MS + 1_000 + late_ms, max_lateness_ms=1_000)
    assert firing.is_too_late == bool(late_ms)
    assert firing.has_missed
    assert len(firing.messages) == 1 - late_ms
    assert (firing.instant_ms, firing.next_fire_ms) == (NOON_MS + 2 * HOUR_MS, NOON_MS + 3 * HOUR_MS)


def test_too_late_without_another_instant_is_missed_too() -> None:
    assert planned(due(), 1_001, max_lateness_ms=1_000).has_missed


def test_an_instant_that_a_later_release_of_the_zone_data_no_longer_has_fires_all_the_same() -> None:
    firing = planned(due(at_ms=NOON_MS - 7))
    assert firing.instant_ms == NOON_MS, "what is due by the new data goes first"
    firing = planned(due("0 15 * * *", at_ms=NOON_MS - 7))
    assert (firing.instant_ms, firing.next_fire_ms) == (NOON_MS - 7, NOON_MS + 3 * HOUR_MS)


def test_there_may_be_no_next_instant() -> None:
    firing = planned(due("CRON_TZ=Europe/Berlin 30 2 25-31 3 */7"))
    assert (len(firing.messages), firing.next_fire_ms) == (1, None)


def test_a_group_is_what_it_is_at_the_firing() -> None:
    stored = StoredSchedule(
        schedule=plan(GroupDestination(name="orders"), GROUP), created_ms=0, revision=1, next_fire_ms=NOON_MS
    )
    firing = planned(stored, group=GROUP)
    assert [message.message.url for message in firing.messages] == [endpoint.url for endpoint in GROUP.endpoints]
    assert [message.id for message in firing.messages] == ids_of(
        stored, NOON_MS, [endpoint.url for endpoint in GROUP.endpoints]
    )
    for group, error in (
        (None, "topic orders not found"),
        (msgspec.structs.replace(GROUP, endpoints=()), "topic orders has no endpoints"),
    ):
        firing = planned(stored, group=group)
        assert (firing.messages, firing.error) == ((), error)
        assert (firing.instant_ms, firing.next_fire_ms) == (NOON_MS, NOON_MS + HOUR_MS)


def test_what_cannot_be_planned_is_raised() -> None:
    with pytest.raises(ValueError, match="the schedule mine has no next fire time"):
        planned(msgspec.structs.replace(due(), next_fire_ms=None))
    with pytest.raises(InvalidRequest, match="Upstash-Cron: invalid"):
        planned(due("never"))
    with pytest.raises(InvalidRequest, match="Upstash-Cron: invalid"):
        parsed_cron("never")

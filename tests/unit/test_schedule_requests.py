"""What requests for schedules say besides the options of a publish."""

import pytest

from qstash_clone.domain.deduplication import digest_of_id, digest_of_schedule
from qstash_clone.domain.destination import UrlDestination, parse_batch_destination
from qstash_clone.domain.header_values import HeaderLines
from qstash_clone.domain.headers import PublishOptions, parse_options
from qstash_clone.domain.limits import Limits
from qstash_clone.domain.message import Deduplication
from qstash_clone.domain.schedules import (
    StateChange,
    parse_state_change,
    plan_schedule,
    plan_schedule_deduplication,
)

LIMITS = Limits(default_retries=3, max_retries=10, default_timeout_ms=5_000, max_timeout_ms=10_000, max_delay_ms=60_000)


def destination() -> UrlDestination:
    parsed = parse_batch_destination("https://example.com")
    assert isinstance(parsed, UrlDestination)
    return parsed


def options(*lines: tuple[bytes, bytes]) -> PublishOptions:
    given: HeaderLines = [(b"upstash-cron", b"* * * * *"), *lines]
    return parse_options(given, (), LIMITS)


@pytest.mark.parametrize(
    ("rest", "change"),
    [
        (b"scd_1/pause", StateChange(schedule_id="scd_1", is_paused=True)),
        (b"scd_1/resume", StateChange(schedule_id="scd_1", is_paused=False)),
        (b"scd_1/PAUSE", StateChange(schedule_id="scd_1", is_paused=True)),
        (b"a.B_c-1/Resume", StateChange(schedule_id="a.B_c-1", is_paused=False)),
        (b"scd%5F1/pause", StateChange(schedule_id="scd_1", is_paused=True)),
        (b"pause/pause", StateChange(schedule_id="pause", is_paused=True)),
        (b"", None),
        (b"pause", None),
        (b"/pause", None),
        (b"scd_1/", None),
        (b"scd_1/pause/", None),
        (b"scd_1//pause", None),
        (b"scd_1/paused", None),
        (b"a/b/pause", None),
        (b"a%20b/pause", None),
        (b"a%2Fb/pause", None),
        (b"\xff/pause", None),
        (b"https:/pause", None),
        (b"https://pause", None),
        (b"https://example.com/pause", None),
        (b"https%3A%2F%2Fexample.com/pause", None),
        (b"scd_1%2Fpause", None),
    ],
)
def test_a_state_change_is_a_name_and_an_action(rest: bytes, change: StateChange | None) -> None:
    assert parse_state_change(rest) == change


def test_the_queue_of_an_enqueue_wins() -> None:
    given = options((b"upstash-queue-name", b"of-the-header"))
    assert plan_schedule("s", destination(), given, b"", "").queue == "of-the-header"
    assert plan_schedule("s", destination(), given, b"", "", queue="of-the-path").queue == "of-the-path"


def test_a_timeout_is_remembered_as_given() -> None:
    assert not plan_schedule("s", destination(), options(), b"", "").has_timeout
    given = plan_schedule("s", destination(), options((b"upstash-timeout", b"5")), b"", "")
    assert (given.has_timeout, given.message.timeout_ms) == (True, 5_000)


def test_schedules_and_messages_are_never_repeats_of_each_other() -> None:
    given = options((b"upstash-deduplication-id", b"one"), (b"upstash-deduplication-window", b"5s"))
    digest = digest_of_schedule(digest_of_id("one"))
    assert plan_schedule_deduplication(destination(), given, b"") == Deduplication(digest=digest, window_ms=5_000)
    assert digest != digest_of_id("one")
    assert len(digest) == 16
    assert plan_schedule_deduplication(destination(), options(), b"") is None


def test_the_queue_belongs_to_the_content() -> None:
    given = options((b"upstash-content-based-deduplication", b"true"))
    digests = {
        deduplication.digest
        for queue in (None, "a", "b")
        if (deduplication := plan_schedule_deduplication(destination(), given, b"", queue)) is not None
    }
    assert len(digests) == 3

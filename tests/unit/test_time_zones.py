"""Time zones as stretches of even time, against the changes that their data files list."""

import struct
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from io import BytesIO
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from qstash_clone.domain import time_zones
from qstash_clone.domain.time_zones import LAST_MS, Stretch, local_text, stretches_back_from, stretches_from, zone_names

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
END_MS = 4_102_444_800_000
"""2100: where the walks of these tests end."""
ZONES = [
    "UTC",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Africa/Monrovia",
    "America/Argentina/Buenos_Aires",
    "America/Boa_Vista",
    "America/New_York",
    "America/Noronha",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Antarctica/Casey",
    "Antarctica/Troll",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Pyongyang",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Europe/Dublin",
    "Europe/Istanbul",
    "Pacific/Apia",
    "Pacific/Enderbury",
    "Pacific/Kwajalein",
]

Change = tuple[int, int, int]
"""Unix ms, offset before it and from then on in ms."""


def listed_changes(zone: str) -> list[Change]:
    """The changes of the offset since 1970 that the data file lists one by one (RFC 8536)."""
    data = files("tzdata").joinpath("zoneinfo", *zone.split("/")).read_bytes()
    header = struct.Struct(">4sc15x6l")
    *_, utc, std, leaps, times, types, characters = header.unpack_from(data)
    # The first block is for readers of 32 bits.
    at = header.size + times * 5 + types * 6 + characters + leaps * 8 + std + utc
    *_, times, types, _ = header.unpack_from(data, at)
    at += header.size
    moments = struct.unpack_from(f">{times}q", data, at)
    indexes = data[at + 8 * times : at + 9 * times]
    offsets = [struct.unpack_from(">l", data, at + 9 * times + 6 * index)[0] for index in range(types)]
    found: list[Change] = []
    before_ms = offsets[0] * 1000
    for moment, index in zip(moments, indexes, strict=True):
        offset_ms = offsets[index] * 1000
        if offset_ms != before_ms and moment > 0:
            found.append((moment * 1000, before_ms, offset_ms))
        before_ms = offset_ms
    return found


def joined(stretches: list[Stretch]) -> list[Change]:
    """The changes between stretches; those that only the turn of a year separates are one."""
    return [
        (following.start_ms, before.offset_ms, following.offset_ms)
        for before, following in pairwise(stretches)
        if before.offset_ms != following.offset_ms
    ]


def until(end_ms: int, zone: str, start_ms: int = 0) -> list[Stretch]:
    found: list[Stretch] = []
    for stretch in stretches_from(zone, start_ms):
        if stretch.start_ms >= end_ms:
            break
        found.append(stretch)
    return found


@pytest.mark.parametrize("zone", ZONES)
def test_every_change_is_found_to_the_second(zone: str) -> None:
    expected = listed_changes(zone)
    last_ms = expected[-1][0] if expected else 0
    assert [change for change in joined(until(END_MS, zone)) if change[0] <= last_ms] == expected


@pytest.mark.parametrize("zone", ZONES)
def test_stretches_leave_nothing_out_and_are_the_same_backwards(zone: str) -> None:
    forwards = until(END_MS, zone)
    assert forwards[0].start_ms == 0
    assert all(before.end_ms == following.start_ms for before, following in pairwise(forwards))
    assert list(stretches_back_from(zone, forwards[-1].start_ms)) == forwards[::-1]


@pytest.mark.parametrize("zone", ZONES)
def test_a_stretch_knows_what_was_shown_before_it(zone: str) -> None:
    for before, stretch in pairwise(until(END_MS, zone)):
        starts_ms, shown_ms = stretch.start_ms + stretch.offset_ms, stretch.start_ms + before.offset_ms
        assert max(starts_ms, stretch.shown_ms) == max(starts_ms, shown_ms)


def test_no_zone_changes_twice_between_two_looks() -> None:
    """The search looks every three days; a release of the data that needs more would go unnoticed."""
    closest_ms = min(
        following[0] - before[0] for zone in zone_names() for before, following in pairwise(listed_changes(zone))
    )
    assert closest_ms == 601_200_000


def test_the_names_are_those_of_the_package() -> None:
    names = zone_names()
    assert len(names) > 590
    assert {"UTC", "Europe/Berlin", "America/Argentina/ComodRivadavia", "Etc/GMT+12", "EST5EDT"} <= names
    assert not {"", "zones", "europe/berlin", "../zones", "localtime"} & names
    for zone in names:
        local_text(zone, 0)


@pytest.mark.parametrize(
    ("zone", "at", "shown"),
    [
        ("UTC", "2026-03-29T01:00+00:00", "2026-03-29T01:00:00+00:00"),
        ("Europe/Berlin", "2026-03-29T00:59+00:00", "2026-03-29T01:59:00+01:00"),
        ("Europe/Berlin", "2026-03-29T01:00+00:00", "2026-03-29T03:00:00+02:00"),
        ("Asia/Kathmandu", "2026-01-01T00:00+00:00", "2026-01-01T05:45:00+05:45"),
        ("Africa/Monrovia", "1971-01-01T00:00+00:00", "1970-12-31T23:15:30-00:44:30"),
    ],
)
def test_what_clocks_show(zone: str, at: str, shown: str) -> None:
    assert local_text(zone, (datetime.fromisoformat(at) - EPOCH) // timedelta(milliseconds=1)) == shown


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Pacific/Apia", "America/New_York"])
def test_the_ends_of_time(zone: str) -> None:
    [*_, last] = stretches_from(zone, LAST_MS - 400 * DAY_MS)
    assert last.end_ms == LAST_MS + 1
    assert next(stretches_back_from(zone, LAST_MS)) == last
    first = next(stretches_from(zone, 0))
    assert first.start_ms == 0
    assert list(stretches_back_from(zone, 0)) == [first]
    assert local_text(zone, LAST_MS)[:2] in ("98", "99")


def test_times_may_be_repeated_over_the_turn_of_the_year(monkeypatch: pytest.MonkeyPatch) -> None:
    """No zone does that so far: at half past midnight on 1 January, an hour after UTC, clocks go back to UTC."""
    block = struct.pack(">4sc15x6l", b"TZif", b"2", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", 3600, 0, 0) + b"AAA\0"
    info = ZoneInfo.from_file(BytesIO(block + block + b"\nAAA-1BBB0,J1/0:30,J100/0\n"))
    monkeypatch.setattr(time_zones, "_zone_info", lambda zone: info)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    year_ms = 1_767_225_600_000  # 2026-01-01T00:00Z
    stretch = next(stretches_from("Test/Turn_of_the_year", year_ms))
    assert (stretch.start_ms, stretch.offset_ms) == (year_ms, 0)
    assert stretch.shown_ms == year_ms + HOUR_MS // 2


def test_a_moment_between_two_stretches_belongs_to_the_later_one() -> None:
    change_ms = 1_774_746_000_000  # 2026-03-29T01:00Z, Berlin's clocks go forward
    assert next(stretches_from("Europe/Berlin", change_ms)).offset_ms == 2 * HOUR_MS
    assert next(stretches_from("Europe/Berlin", change_ms - 1)).offset_ms == HOUR_MS
    assert next(stretches_back_from("Europe/Berlin", change_ms)).offset_ms == 2 * HOUR_MS
    assert next(stretches_back_from("Europe/Berlin", change_ms - 1)).offset_ms == HOUR_MS

"""Time zones as stretches of time in which the clock on the wall runs evenly.

The data are those of the package tzdata, not of the machine, so that all processes of one installation agree.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_YEAR = 9900
_MILLISECOND = timedelta(milliseconds=1)
_SECOND_MS = 1000
_DAY_MS = 86_400_000
_PROBE_MS = 3 * _DAY_MS
"""Two changes of one zone are never closer than 6.9 days since 1970 (Boa Vista 2000, Gaza 2040)."""
_DATA = files("tzdata")

LAST_MS: Final = (datetime(_END_YEAR, 1, 1, tzinfo=UTC) - _EPOCH) // _MILLISECOND - 1
"""The last time that can be asked for; Python's end of time is a century later."""


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """A time without a change of the zone's offset. Milliseconds throughout."""

    start_ms: int
    end_ms: int
    """Unix times; the end is the start of the next stretch."""
    offset_ms: int
    """What the wall clock is ahead of UTC."""
    shown_ms: int
    """Times on the wall before this one were shown before `start_ms`: a stretch begins with times that are repeated,
    if the clock was set back."""


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Every name of the IANA data, aliases included."""
    return frozenset((_DATA / "zones").read_text("ascii").split())


def stretches_from(zone: str, unix_ms: int) -> Iterator[Stretch]:
    """The stretch that contains a time from 1970 to `LAST_MS`, and those after it."""
    year = _utc(unix_ms).year
    yield from (stretch for stretch in _stretches(zone, year) if unix_ms < stretch.end_ms)
    for later in range(year + 1, _END_YEAR):
        yield from _stretches(zone, later)


def stretches_back_from(zone: str, unix_ms: int) -> Iterator[Stretch]:
    """The stretch that contains a time from 1970 to `LAST_MS`, and those before it."""
    year = _utc(unix_ms).year
    yield from (stretch for stretch in reversed(_stretches(zone, year)) if stretch.start_ms <= unix_ms)
    for earlier in range(year - 1, _EPOCH.year - 1, -1):
        yield from reversed(_stretches(zone, earlier))


def local_text(zone: str, unix_ms: int) -> str:
    """What clocks of the zone show, to the second and with their offset: `2026-03-29T03:00:00+02:00`."""
    return _utc(unix_ms).astimezone(_zone_info(zone)).isoformat(timespec="seconds")


@lru_cache(maxsize=1024)
def _zone_info(zone: str) -> ZoneInfo:
    with (_DATA / "zoneinfo").joinpath(*zone.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=zone)


@lru_cache(maxsize=8192)
def _stretches(zone: str, year: int) -> tuple[Stretch, ...]:
    """The stretches of a year in UTC; its start and end cut what goes on beyond them."""
    info = _zone_info(zone)
    start_ms, year_end_ms = _year_start_ms(year), _year_start_ms(year + 1)
    # From the day before, because times may be repeated over the turn of the year, too.
    probe_ms, last_ms = start_ms - _DAY_MS, year_end_ms - _SECOND_MS
    offset_ms = _offset_ms(info, probe_ms)
    shown_ms = start_ms + offset_ms
    stretches: list[Stretch] = []
    while probe_ms < last_ms:
        next_probe_ms = min(probe_ms + _PROBE_MS, last_ms)
        next_offset_ms = _offset_ms(info, next_probe_ms)
        if next_offset_ms != offset_ms:
            change_ms = _change_ms(info, probe_ms, next_probe_ms, offset_ms)
            if change_ms > start_ms:
                stretches.append(Stretch(start_ms=start_ms, end_ms=change_ms, offset_ms=offset_ms, shown_ms=shown_ms))
                start_ms = change_ms
            shown_ms = change_ms + offset_ms
            offset_ms = next_offset_ms
        probe_ms = next_probe_ms
    stretches.append(Stretch(start_ms=start_ms, end_ms=year_end_ms, offset_ms=offset_ms, shown_ms=shown_ms))
    return tuple(stretches)


def _change_ms(info: ZoneInfo, before_ms: int, after_ms: int, offset_ms: int) -> int:
    """The first whole second without this offset, which holds at `before_ms` and no longer at `after_ms`."""
    while after_ms - before_ms > _SECOND_MS:
        middle_ms = before_ms + (after_ms - before_ms) // (2 * _SECOND_MS) * _SECOND_MS
        if _offset_ms(info, middle_ms) == offset_ms:
            before_ms = middle_ms
        else:
            after_ms = middle_ms
    return after_ms


def _offset_ms(info: ZoneInfo, unix_ms: int) -> int:
    offset = _utc(unix_ms).astimezone(info).utcoffset()
    assert offset is not None
    return offset // _MILLISECOND


def _utc(unix_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=unix_ms)


def _year_start_ms(year: int) -> int:
    return (datetime(year, 1, 1, tzinfo=UTC) - _EPOCH) // _MILLISECOND

"""Cron expressions of schedules: the grammar, and the instants at which one fires. See docs/protocol/cron.md."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from qstash_clone.domain.quoting import quoted
from qstash_clone.domain.time_zones import LAST_MS, stretches_back_from, stretches_from, zone_names
from qstash_clone.domain.wall_clock import WallClock
from qstash_clone.errors import InvalidRequest

MAX_CHARACTERS: Final = 256
HORIZON_MS: Final = 50 * 366 * 86_400_000
"""How far `Cron.next_after` looks. 29 February falls on a given weekday at least every 40 years."""

_BLANKS = " \t"
_GAP = re.compile(r"[ \t]+")
_ZONE_PREFIX = re.compile(r"(?:CRON_)?TZ=([^ \t]*)[ \t]*")
_ITEM = re.compile(r"(?:\*|([0-9]+|[A-Za-z]{3})(?:-([0-9]+|[A-Za-z]{3}))?)(?:/([0-9]+))?")
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SUNDAY_TOO = 7
_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class _Field(NamedTuple):
    name: str
    first: int
    last: int
    """What `*` and a step without an end run to."""
    greatest: int
    """What may be written; as a step, too."""
    names: dict[str, int]


_FIELDS = (
    _Field("minute", 0, 59, 59, {}),
    _Field("hour", 0, 23, 23, {}),
    _Field("day of month", 1, 31, 31, {}),
    _Field("month", 1, 12, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    _Field("day of week", 0, 6, _SUNDAY_TOO, {name: number for number, name in enumerate(_WEEKDAYS)}),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """When a schedule fires. Times are Unix times in milliseconds; those before 1970 are taken as 1970."""

    expression: str
    """As given, without blanks around it."""
    zone: str
    """A name of the IANA data."""
    _wall: WallClock = field(repr=False, compare=False)
    _fires_again: bool = field(repr=False, compare=False)
    """A time that the clock shows twice counts twice, because the hour is a wildcard."""

    def next_after(self, unix_ms: int) -> int | None:
        """The first firing strictly after a time; None if there is none within 50 years (which only clock changes can
        bring about) or before the year 9900."""
        low_ms = max(unix_ms + 1, 0)
        if low_ms > LAST_MS:
            return None
        searched_ms, found_ms = 0, -1
        for stretch in stretches_from(self.zone, low_ms):
            if stretch.start_ms > low_ms + HORIZON_MS:
                break
            wall_ms = max(low_ms, stretch.start_ms) + stretch.offset_ms
            if not self._fires_again:
                wall_ms = max(wall_ms, stretch.shown_ms)
            # What was found beyond the end of one stretch is still the next one in those after it.
            if not searched_ms <= wall_ms <= found_ms:
                searched_ms, found_ms = wall_ms, self._wall.first_from(wall_ms)
            if found_ms < stretch.end_ms + stretch.offset_ms:
                return found_ms - stretch.offset_ms
        return None

    def latest_until(self, after_ms: int, until_ms: int) -> int | None:
        """The last firing after the one time and not after the other, None if there is none.

        The cost does not depend on the number of firings between the two.
        """
        low_ms, high_ms = max(after_ms + 1, 0), min(until_ms, LAST_MS)
        if high_ms < low_ms:
            return None
        searched_ms, found_ms = -1, 0
        for stretch in stretches_back_from(self.zone, high_ms):
            if stretch.end_ms <= low_ms:
                break
            wall_ms = min(high_ms, stretch.end_ms - 1) + stretch.offset_ms
            if not found_ms <= wall_ms <= searched_ms:
                searched_ms, found_ms = wall_ms, self._wall.last_until(wall_ms)
            bottom_ms = max(low_ms, stretch.start_ms) + stretch.offset_ms
            if not self._fires_again:
                bottom_ms = max(bottom_ms, stretch.shown_ms)
            if found_ms >= bottom_ms:
                return found_ms - stretch.offset_ms
        return None


def parse_cron(header: str, text: str) -> Cron:
    """The expression of a header or field. Raises `InvalidRequest` for one that is malformed or can never fire."""
    try:
        return _parse(text.strip(_BLANKS))
    except _Malformed as error:
        raise InvalidRequest(f"{header}: invalid cron expression {quoted(text)}: {error}") from None


class _Malformed(ValueError):
    pass


@lru_cache(maxsize=4096)
def _parse(expression: str) -> Cron:
    if len(expression) > MAX_CHARACTERS:
        raise _Malformed(f"it has more than {MAX_CHARACTERS} characters")
    prefix = _ZONE_PREFIX.match(expression)
    zone = "UTC" if prefix is None else prefix[1]
    if zone not in zone_names():
        raise _Malformed(f"{quoted(zone)} is not a time zone of the IANA data")
    texts = _split(expression if prefix is None else expression[prefix.end() :])
    minutes, hours, days, months, weekdays = (
        _parse_field(field, text) for field, text in zip(_FIELDS, texts, strict=True)
    )
    any_day, any_weekday = texts[2].startswith("*"), texts[4].startswith("*")
    either = not any_day and not any_weekday
    if not either and min(days) > max(_LONGEST_MONTHS[month - 1] for month in months):
        raise _Malformed(f"no month that it names has a day {min(days)}, so that it would never fire")
    return Cron(
        expression,
        zone,
        WallClock(minutes, hours, days, months, weekdays, either=either),
        texts[1].startswith("*"),
    )


def _split(text: str) -> list[str]:
    if text.startswith("@"):
        fields = _MACROS.get(text.lower())
        if fields is None:
            raise _Malformed(f"{quoted(text)} is none of {', '.join(_MACROS)}")
        return fields.split()
    texts = _GAP.split(text) if text else []
    if len(texts) != len(_FIELDS):
        what = "; seconds and years are not supported" if len(texts) > len(_FIELDS) else ""
        names = ", ".join(field.name for field in _FIELDS)
        raise _Malformed(f"it has {len(texts)} fields instead of five ({names}){what}")
    return texts


def _parse_field(field: _Field, text: str) -> list[int]:
    values: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise _Malformed(f"{quoted(item)} is not a {field.name}")
        first, last, step = match.groups()
        if first is None:
            start, end = field.first, field.last
        else:
            start = end = _number(field, first)
            if last is not None:
                end = _number(field, last)
            elif step is not None:
                end = max(start, field.last)
        if end < start:
            raise _Malformed(f"the {field.name} range {quoted(item)} runs backwards")
        if step is not None and not 1 <= int(step) <= field.greatest:
            raise _Malformed(f"the {field.name} step {quoted(step)} is not from 1 to {field.greatest}")
        values.update(range(start, end + 1, 1 if step is None else int(step)))
    if field.greatest == _SUNDAY_TOO:
        values = {value % _SUNDAY_TOO for value in values}
    return sorted(values)


def _number(field: _Field, text: str) -> int:
    number = field.names.get(text.lower())
    if number is not None:
        return number
    if not text.isdigit():
        raise _Malformed(f"{quoted(text)} is not a {field.name}")
    if not field.first <= int(text) <= field.greatest:
        raise _Malformed(f"the {field.name} {quoted(text)} is not from {field.first} to {field.greatest}")
    return int(text)

"""The wait that a destination asks for in the headers of a failed attempt."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from math import ceil

from qstash_clone.domain.message import Headers

MAX_DELAY_MS = 86_400_000
"""A longer wait is taken for a mistake, most often a point in time where seconds were meant."""

# Of each group the longest wait counts; the first group that names a usable one decides.
_HEADER_GROUPS = (
    ("retry-after",),
    ("x-ratelimit-reset",),
    ("x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"),
)
_NAMES = frozenset(name for group in _HEADER_GROUPS for name in group)

_SECONDS = re.compile(r"[0-9]{1,15}")
_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{2}) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) ([0-9]{4})"
    r" ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MILLISECONDS = {
    "ns": 1e-6,
    "us": 1e-3,
    "\u00b5s": 1e-3,  # micro sign
    "\u03bcs": 1e-3,  # Greek mu
    "ms": 1.0,
    "s": 1e3,
    "m": 60e3,
    "h": 3600e3,
}
_PART = r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)"
_PARTS = re.compile(_PART)
_DURATION = re.compile(f"(?:{_PART})+")


def delay_from_headers_ms(headers: Headers, now_ms: int) -> int | None:
    """Milliseconds to wait, 0 to a day, or None if no header names a usable wait; see docs/protocol/retries.md.

    `now_ms` is unix time; dates are taken relative to it, and one in the past means now.
    """
    waits: dict[str, int] = {}
    for name, value in headers:
        lowered = name.lower()
        if lowered in _NAMES and lowered not in waits:
            wait_ms = _parse_wait_ms(value, now_ms)
            if wait_ms is not None:
                waits[lowered] = wait_ms
    for group in _HEADER_GROUPS:
        usable = [waits[name] for name in group if name in waits]
        if usable:
            return max(usable)
    return None


def _parse_wait_ms(value: str, now_ms: int) -> int | None:
    text = _as_text(value).strip()
    if _SECONDS.fullmatch(text):
        wait_ms = int(text) * 1000
    elif date := _DATE.fullmatch(text):
        wait_ms = _until_ms(date.groups(), now_ms)
    elif _DURATION.fullmatch(text):
        # Rounded up, so that a limit is never tested too early; the sum of floats is rounded first because it is not
        # exact to the nanosecond.
        wait_ms = ceil(round(_total_ms(_PARTS.findall(text)), 6))
    else:
        return None
    return wait_ms if wait_ms is not None and wait_ms <= MAX_DELAY_MS else None


def _as_text(value: str) -> str:
    """Header values are bytes shown as latin-1; a micro sign may have been sent as UTF-8."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def _until_ms(date: tuple[str, ...], now_ms: int) -> int | None:
    day, month, year, hour, minute, second = date
    try:
        at = datetime(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:
        return None
    return max(0, int(at.timestamp()) * 1000 - now_ms)


def _total_ms(parts: Iterable[tuple[str, str]]) -> float:
    return sum(float(number) * _MILLISECONDS[unit] for number, unit in parts)

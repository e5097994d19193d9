"""Times on a wall clock that match the fields of a cron expression, as milliseconds since it showed 1970.

The clock runs evenly: what happens where it is set is up to the caller. croniter does the search. It is given plain
lists, because it reads more into an expression than cron does, and wall clock times, because it has its own idea of
clock changes.
"""

from collections.abc import Collection
from threading import Lock
from typing import Any, Final

from croniter import croniter

_MINUTE_MS: Final = 60_000
_SIZES: Final = 60, 24, 31, 12, 7


class WallClock:
    """Finds matching times before and after others. There has to be a day that matches: what is asked for exists."""

    def __init__(
        self,
        minutes: Collection[int],
        hours: Collection[int],
        days: Collection[int],
        months: Collection[int],
        weekdays: Collection[int],
        *,
        either: bool,
    ) -> None:
        """Weekdays count from Sunday, 0. With `either` a day of the month or of the week will do, else both have to
        match."""
        lists = [
            _listed(values, size) for values, size in zip((minutes, hours, days, months, weekdays), _SIZES, strict=True)
        ]
        if either and "*" in (lists[2], lists[4]):
            lists[2] = lists[4] = "*"
        # Typed as what it is to us: it carries no types of its own.
        self._croniter: Any = croniter(" ".join(lists), 0, day_or=either)
        # It keeps its position in itself.
        self._lock = Lock()

    def first_from(self, wall_ms: int) -> int:
        """The first match at or after a time."""
        minute = -(-wall_ms // _MINUTE_MS)
        with self._lock:
            return int(self._croniter.get_next(float, start_time=(minute - 1) * 60)) * 1000

    def last_until(self, wall_ms: int) -> int:
        """The last match at or before a time."""
        minute = wall_ms // _MINUTE_MS
        with self._lock:
            return int(self._croniter.get_prev(float, start_time=(minute + 1) * 60)) * 1000


def _listed(values: Collection[int], size: int) -> str:
    return "*" if len(set(values)) == size else ",".join(map(str, sorted(set(values))))

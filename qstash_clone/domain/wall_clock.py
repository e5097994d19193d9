"""Times on a wall clock that match the fields of a cron expression, as milliseconds since it showed 1970.

The clock runs evenly: what happens where it is set is up to the caller. A search takes some microseconds whatever the
distance, because it goes by months and days; the service plans a thousand firings a second.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from datetime import date
from typing import Final

_MINUTE_MS: Final = 60_000
_HOUR_MINUTES: Final = 60
_DAY_MINUTES: Final = 24 * 60
_EPOCH: Final = date(1970, 1, 1).toordinal()


class WallClock:
    """Finds matching times before and after others. There has to be a day that matches: what is asked for exists."""

    def __init__(
        self,
        minutes: Iterable[int],
        hours: Iterable[int],
        days: Iterable[int],
        months: Iterable[int],
        weekdays: Iterable[int],
        *,
        either: bool,
    ) -> None:
        """Weekdays count from Sunday, 0. With `either` a day of the month or of the week will do, else both have to
        match."""
        self._minutes, self._hours = sorted(minutes), sorted(hours)
        self._days, self._months, self._weekdays = frozenset(days), frozenset(months), frozenset(weekdays)
        self._either = either

    def first_from(self, wall_ms: int) -> int:
        """The first match at or after a time."""
        day, minute = divmod(-(-wall_ms // _MINUTE_MS), _DAY_MINUTES)
        found = self._minute_from(minute) if self._is_on(_EPOCH + day) else None
        if found is None:
            day, found = day + 1, self._hours[0] * _HOUR_MINUTES + self._minutes[0]
            while not self._is_on(_EPOCH + day):
                day += 1 if self._is_in_month(_EPOCH + day) else _days_to_next_month(_EPOCH + day)
        return (day * _DAY_MINUTES + found) * _MINUTE_MS

    def last_until(self, wall_ms: int) -> int:
        """The last match at or before a time."""
        day, minute = divmod(wall_ms // _MINUTE_MS, _DAY_MINUTES)
        found = self._minute_until(minute) if self._is_on(_EPOCH + day) else None
        if found is None:
            day, found = day - 1, self._hours[-1] * _HOUR_MINUTES + self._minutes[-1]
            while not self._is_on(_EPOCH + day):
                day -= 1 if self._is_in_month(_EPOCH + day) else date.fromordinal(_EPOCH + day).day
        return (day * _DAY_MINUTES + found) * _MINUTE_MS

    def _is_in_month(self, ordinal: int) -> bool:
        return date.fromordinal(ordinal).month in self._months

    def _is_on(self, ordinal: int) -> bool:
        day = date.fromordinal(ordinal)
        if day.month not in self._months:
            return False
        # The first of January of the year 1, with which ordinals begin, was a Monday.
        is_day, is_weekday = day.day in self._days, ordinal % 7 in self._weekdays
        return is_day or is_weekday if self._either else is_day and is_weekday

    def _minute_from(self, minute_of_day: int) -> int | None:
        """The first match of a day at or after a minute of it."""
        hour, minute = divmod(minute_of_day, _HOUR_MINUTES)
        at = bisect_left(self._hours, hour)
        if at < len(self._hours) and self._hours[at] == hour:
            if minute <= self._minutes[-1]:
                return hour * _HOUR_MINUTES + self._minutes[bisect_left(self._minutes, minute)]
            at += 1
        return self._hours[at] * _HOUR_MINUTES + self._minutes[0] if at < len(self._hours) else None

    def _minute_until(self, minute_of_day: int) -> int | None:
        """The last match of a day at or before a minute of it."""
        hour, minute = divmod(minute_of_day, _HOUR_MINUTES)
        at = bisect_right(self._hours, hour) - 1
        if at >= 0 and self._hours[at] == hour:
            if minute >= self._minutes[0]:
                return hour * _HOUR_MINUTES + self._minutes[bisect_right(self._minutes, minute) - 1]
            at -= 1
        return self._hours[at] * _HOUR_MINUTES + self._minutes[-1] if at >= 0 else None


def _days_to_next_month(ordinal: int) -> int:
    day = date.fromordinal(ordinal)
    following = date(day.year + day.month // 12, day.month % 12 + 1, 1)
    return following.toordinal() - ordinal

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
        self._months, self._days, self._weekdays = sorted(months), frozenset(days), frozenset(weekdays)
        self._either = either
        self._first_minute = self._hours[0] * _HOUR_MINUTES + self._minutes[0]
        self._last_minute = self._hours[-1] * _HOUR_MINUTES + self._minutes[-1]

    def first_from(self, wall_ms: int) -> int:
        """The first match at or after a time."""
        day, minute = divmod(-(-wall_ms // _MINUTE_MS), _DAY_MINUTES)
        found_day = self._day_from(day)
        found = self._minute_from(minute) if found_day == day else self._first_minute
        if found is None:
            found_day, found = self._day_from(day + 1), self._first_minute
        return (found_day * _DAY_MINUTES + found) * _MINUTE_MS

    def last_until(self, wall_ms: int) -> int:
        """The last match at or before a time."""
        day, minute = divmod(wall_ms // _MINUTE_MS, _DAY_MINUTES)
        found_day = self._day_until(day)
        found = self._minute_until(minute) if found_day == day else self._last_minute
        if found is None:
            found_day, found = self._day_until(day - 1), self._last_minute
        return (found_day * _DAY_MINUTES + found) * _MINUTE_MS

    def _day_from(self, number: int) -> int:
        """The first day that matches, at or after one; days count from 1970."""
        while True:
            day = date.fromordinal(_EPOCH + number)
            at = bisect_left(self._months, day.month)
            if at < len(self._months) and self._months[at] == day.month:
                if self._is_on(day):
                    return number
                number += 1
            elif at < len(self._months):
                number = date(day.year, self._months[at], 1).toordinal() - _EPOCH
            else:
                number = date(day.year + 1, self._months[0], 1).toordinal() - _EPOCH

    def _day_until(self, number: int) -> int:
        """The last day that matches, at or before one."""
        while True:
            day = date.fromordinal(_EPOCH + number)
            at = bisect_right(self._months, day.month) - 1
            if at >= 0 and self._months[at] == day.month:
                if self._is_on(day):
                    return number
                number -= 1
            else:
                # For -1 as well: the last one, of the year before.
                year, month = day.year if at >= 0 else day.year - 1, self._months[at]
                number = date(year + month // 12, month % 12 + 1, 1).toordinal() - _EPOCH - 1

    def _is_on(self, day: date) -> bool:
        is_day, is_weekday = day.day in self._days, day.isoweekday() % 7 in self._weekdays
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

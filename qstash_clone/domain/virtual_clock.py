"""The clock of messages: Redis's own, until somebody who tests with it moves it ahead or stops it."""

from typing import Final, assert_never

import msgspec

from qstash_clone.errors import InvalidRequest

LATEST_MS: Final = 32_503_680_000_000
"""The year 3000: what is delayed from there for as long as anything may be still fits a record, and a calendar."""


class VirtualClock(msgspec.Struct, frozen=True, kw_only=True):
    """The clock as it was at one moment; times are unix ms."""

    real_ms: int
    """Redis's own clock at that moment."""
    offset_ms: int = 0
    """Added to Redis's clock while this one runs. Below 0 after it stood still."""
    frozen_ms: int | None = None
    """The time it shows for as long as it stands still."""

    @property
    def now_ms(self) -> int:
        return self.real_ms + self.offset_ms if self.frozen_ms is None else self.frozen_ms

    @property
    def ahead_ms(self) -> int:
        """Of Redis's own clock; less than 0 if it is behind."""
        return self.now_ms - self.real_ms


class Advance(msgspec.Struct, frozen=True):
    """Let some time pass."""

    by_ms: int


class MoveTo(msgspec.Struct, frozen=True):
    """Let the time pass until a moment."""

    now_ms: int


class Freeze(msgspec.Struct, frozen=True):
    """Stand still, or go on from where it stands."""

    is_frozen: bool


ClockMove = Advance | MoveTo | Freeze


def moved(clock: VirtualClock, move: ClockMove) -> VirtualClock:
    """The clock after a move. Raises `InvalidRequest` for one that would go back, or past the year 3000."""
    match move:
        case Advance():
            return _shown(clock, clock.now_ms + move.by_ms)
        case MoveTo():
            return _shown(clock, move.now_ms)
        case Freeze() if move.is_frozen:
            return msgspec.structs.replace(clock, frozen_ms=clock.now_ms)
        case Freeze():
            return msgspec.structs.replace(clock, offset_ms=clock.ahead_ms, frozen_ms=None)
        case _:  # pragma: no cover
            assert_never(move)


def _shown(clock: VirtualClock, now_ms: int) -> VirtualClock:
    if now_ms < clock.now_ms:
        raise InvalidRequest(f"the clock never goes back: {now_ms} is before its present time, {clock.now_ms}")
    if now_ms > LATEST_MS:
        raise InvalidRequest(f"the clock ends with the year 3000: {str(now_ms)[:100]} is after {LATEST_MS}")
    if clock.frozen_ms is not None:
        return msgspec.structs.replace(clock, frozen_ms=now_ms)
    return msgspec.structs.replace(clock, offset_ms=now_ms - clock.real_ms)

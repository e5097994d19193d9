"""Redis's clock, followed by this process between two calls: all processes sign by the same clock."""

import logging
from collections.abc import Callable

from qstash_clone.clock import Clock
from qstash_clone.observability import CLOCK_JUMPED, CLOCK_SKEWED, emit

SKEW_WARNING_MS = 1_000
"""Receivers reject a signature from the future; whole seconds of difference show in logs and in `notBefore`."""
ADVANCE_MS = 1_000
"""Nothing is kept so short that a smaller step of the clock of messages had to be followed at once."""


class RedisClock:
    """The clock of one partition's Redis. Times of two masters are never compared, so there is one per partition."""

    def __init__(
        self, clock: Clock, jump_ms: float, on_jump: Callable[[], None], on_advance: Callable[[], None] = lambda: None
    ) -> None:
        self._clock = clock
        self._jump_ms = jump_ms
        self._on_jump = on_jump
        self._on_advance = on_advance
        self._offset_ms: float | None = None
        self._ahead_ms = 0
        self._is_skewed = False

    def observe(self, redis_now_ms: int) -> None:
        """Note a time that Redis has just told. A jump ages every lease at once, so whoever reclaims is told."""
        offset_ms = redis_now_ms - self._clock.monotonic_ms()
        before_ms, self._offset_ms = self._offset_ms, offset_ms
        if before_ms is not None and abs(offset_ms - before_ms) > self._jump_ms:
            emit(CLOCK_JUMPED, level=logging.WARNING, jump_ms=round(offset_ms - before_ms))
            self._on_jump()
        skew_ms = self._clock.now_ms() - redis_now_ms
        if (abs(skew_ms) > SKEW_WARNING_MS) != self._is_skewed:
            self._is_skewed = not self._is_skewed
            if self._is_skewed:
                emit(CLOCK_SKEWED, level=logging.WARNING, ahead_of_redis_ms=skew_ms)

    def follow_messages(self, ahead_ms: int) -> None:
        """Note how far the clock of messages is ahead of Redis's. A step of it ages what is kept for a time only."""
        has_advanced = ahead_ms - self._ahead_ms > ADVANCE_MS
        self._ahead_ms = ahead_ms
        if has_advanced:
            self._on_advance()

    def now_ms(self) -> int:
        """Redis's time, rounded down and late by the way of the last reply, so never in the future.

        This machine's time until Redis was asked once.
        """
        if self._offset_ms is None:
            return self._clock.now_ms()
        return int(self._offset_ms + self._clock.monotonic_ms())

    def message_now_ms(self) -> int:
        """The time that delays and retries go by; between replies it goes on even if it is frozen."""
        return self.now_ms() + self._ahead_ms

"""What this worker knows about itself: which loops move, and for which of them the store answers."""

import logging
from collections.abc import Callable

from qstash_clone.clock import Clock
from qstash_clone.errors import StorageError
from qstash_clone.observability import STORE_RECOVERED, STORE_UNAVAILABLE, emit

STALLED_AFTER_MS = 60_000
"""A pass lasts a second at most while the store answers (the longest is a blocking read), and the store's patience when
it does not; a loop that has not begun another pass after a minute is stuck."""


class Health:
    """Filled by the loops, read by the probes and by the settler."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._beats: dict[str, float] = {}
        self._failing: dict[str, StorageError] = {}
        self._worked_once = False
        self.on_fault: list[Callable[[], None]] = []
        """Called at every fault that a loop meets."""
        self.is_stopping = False

    def beat(self, loop: str) -> None:
        """A loop begins a pass."""
        self._beats[loop] = self._clock.monotonic_ms()

    def retire(self, loop: str) -> None:
        """A loop ended on purpose."""
        self._beats.pop(loop, None)
        self._failing.pop(loop, None)

    def storage_failed(self, loop: str, error: StorageError) -> None:
        """The store did not answer a loop. Said in the log once per outage."""
        if not self._failing:
            emit(STORE_UNAVAILABLE, level=logging.WARNING, loop=loop, error=str(error))
        self._failing[loop] = error
        for react in self.on_fault:
            react()

    def storage_worked(self, loop: str) -> None:
        """The store answered a loop."""
        self._worked_once = True
        if self._failing and self._failing.pop(loop, None) is not None and not self._failing:
            emit(STORE_RECOVERED, loop=loop)

    def storage_answers(self, loop: str) -> bool:
        """Whether the last call of that loop was answered."""
        return loop not in self._failing

    def stalled_loops(self) -> list[str]:
        """The loops that began no pass for too long; none in a live worker."""
        limit_ms = self._clock.monotonic_ms() - STALLED_AFTER_MS
        return [loop for loop, beat_ms in self._beats.items() if beat_ms < limit_ms]

    def unready_reason(self) -> str | None:
        """Why this worker delivers nothing at the moment; None if it does."""
        if self.is_stopping:
            return "The worker is stopping."
        if self._failing:
            return f"The store does not answer: {next(iter(self._failing.values()))}"
        if not self._worked_once:
            return "The store was not reached yet."
        return None

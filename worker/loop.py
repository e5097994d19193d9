"""What all loops share: a step repeated until stopped, naps that end early, faults of the store survived."""

import asyncio
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from qstash_clone.clock import Clock
from qstash_clone.errors import StorageError, StoreIncompatible
from worker.health import Health

FIRST_BACKOFF_MS = 50
LAST_BACKOFF_MS = 1_000
"""Doubling from 50 ms: 0.05, 0.1, 0.2, 0.4, 0.8, then 1 s for as long as it takes. A worker that waits for Redis
costs next to nothing, and at most a second passes from its return to the first claim."""

ReportT = TypeVar("ReportT")


class Backoff:
    """The pauses between repeated tries."""

    def __init__(self) -> None:
        self._next_ms = FIRST_BACKOFF_MS

    def next_ms(self) -> int:
        """How long to pause now; the next pause is twice as long, up to the cap."""
        pause_ms = self._next_ms
        self._next_ms = min(pause_ms * 2, LAST_BACKOFF_MS)
        return pause_ms

    def reset(self) -> None:
        self._next_ms = FIRST_BACKOFF_MS


class Alarm:
    """Something to sleep on: a nap ends after its time or when the alarm rings, whichever comes first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._has_rung = False
        self._sleeper: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """End the nap under way; without one, the next nap ends as it begins."""
        self._has_rung = True
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def nap(self, duration_ms: float) -> bool:
        """Wait; returns whether the alarm rang. One nap at a time."""
        if not self._has_rung and duration_ms > 0:
            sleeper = self._sleeper = asyncio.get_running_loop().create_future()
            timer = asyncio.create_task(self._clock.sleep(duration_ms))
            timer.add_done_callback(lambda _: sleeper.done() or sleeper.set_result(None))
            try:
                await sleeper
            finally:
                self._sleeper = None
                timer.cancel()
        has_rung, self._has_rung = self._has_rung, False
        return has_rung


class Loop(ABC, Generic[ReportT]):
    """One background role: `step` is a single pass, `run` repeats it. Only the supervisor calls `run`."""

    def __init__(self, name: str, clock: Clock, health: Health) -> None:
        self.name = name
        self._clock = clock
        self._health = health
        self._alarm = Alarm(clock)
        self._stop_alarm = Alarm(clock)
        self._is_stopping = False

    @abstractmethod
    async def step(self) -> ReportT | None:
        """One pass; None if it asked nothing of the store."""

    @abstractmethod
    def rest_ms(self, report: ReportT | None) -> float:
        """How long to rest after a pass."""

    async def rest(self, report: ReportT | None) -> None:
        """Wait before the next pass."""
        await self._alarm.nap(self.rest_ms(report))

    def wake(self) -> None:
        """Cut the rest short. A pause after a fault is not cut short: many callers would make it none."""
        self._alarm.ring()

    def stop(self) -> None:
        """Let `run` return after the pass under way."""
        self._is_stopping = True
        self._alarm.ring()
        self._stop_alarm.ring()

    async def run(self) -> None:
        """Repeat `step` until stopped. A fault of the store is survived however long it lasts; any other exception,
        and a store that has become incompatible, passes through."""
        backoff = Backoff()
        while not self._is_stopping:
            self._health.beat(self.name)
            try:
                report = await self.step()
            except StoreIncompatible:
                raise
            except StorageError as error:
                self._health.storage_failed(self.name, error)
                await self._stop_alarm.nap(backoff.next_ms())
            else:
                if report is not None:
                    backoff.reset()
                    self._health.storage_worked(self.name)
                await self.rest(report)
        self._health.retire(self.name)

"""Moves due messages from the timers to their lanes and sleeps until the next due time."""

import msgspec

from qstash_clone.clock import Clock
from qstash_clone.storage.interface import DeliveryStore
from worker import telemetry
from worker.health import Health
from worker.loop import Loop
from worker.redis_clock import RedisClock

PROMOTE_BATCH = 200
"""Timers per call: about two milliseconds in Redis, during which nobody else is served."""
SHORTEST_SLEEP_MS = 5
"""With a steady stream of due times the sleep would end at each of them; this gathers a few per call and is part of
their lateness."""
LONGEST_SLEEP_MS = 1_000
"""The worst lateness of a timer that was set earlier than the next one known, should its doorbell be lost."""


class PromoteReport(msgspec.Struct, frozen=True, kw_only=True):
    promoted: int
    sleep_ms: float
    """Until the next due time."""


class TimerLoop(Loop[PromoteReport]):
    """Promotes one partition's timers. Every worker does; a timer that another one has promoted is simply gone."""

    def __init__(
        self, *, store: DeliveryStore, partition: int, redis_clock: RedisClock, clock: Clock, health: Health
    ) -> None:
        super().__init__(f"timers-{partition}", clock, health)
        self._store = store
        self._partition = partition
        self._redis_clock = redis_clock
        self._wakes_ms = 0.0

    async def step(self) -> PromoteReport:
        """Promote one batch."""
        batch = await self._store.promote(self._partition, PROMOTE_BATCH)
        self._redis_clock.observe(batch.real_ms)
        self._redis_clock.follow_messages(batch.now_ms - batch.real_ms)
        if batch.promoted:
            telemetry.promoted(batch.promoted)
        if batch.next_due_ms is None or (batch.is_frozen and batch.next_due_ms > batch.now_ms):
            # Whoever moves a clock that stands still rings the doorbell.
            sleep_ms = LONGEST_SLEEP_MS
        elif batch.next_due_ms <= batch.now_ms:
            sleep_ms = 0
        else:
            sleep_ms = min(max(batch.next_due_ms - batch.now_ms, SHORTEST_SLEEP_MS), LONGEST_SLEEP_MS)
        self._wakes_ms = self._clock.monotonic_ms() + sleep_ms
        return PromoteReport(promoted=batch.promoted, sleep_ms=sleep_ms)

    def expect(self, delay_ms: int) -> None:
        """This worker has set a timer; wake up for it if it is due before the present sleep ends."""
        if delay_ms < LONGEST_SLEEP_MS and self._clock.monotonic_ms() + delay_ms < self._wakes_ms:
            self.wake()

    def rest_ms(self, report: PromoteReport | None) -> float:
        return report.sleep_ms if report is not None else LONGEST_SLEEP_MS

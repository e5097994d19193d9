"""Removes what is past its retention, in small batches, so that no call to Redis is long."""

import random

import msgspec

from qstash_clone.clock import Clock
from qstash_clone.storage.interface import DeliveryStore
from worker.health import Health
from worker.loop import Loop

EXPIRE_BATCH = 500
"""Items per call: a few milliseconds in Redis."""
BUSY_INTERVAL_MS = 20
"""While there is more: at most 25,000 items per second and worker, more than a worker can add."""
IDLE_INTERVAL_MS = 5_000
JITTER = 0.5
"""Share by which the idle interval varies: one worker usually finds the work that all of them look for."""


class ExpireReport(msgspec.Struct, frozen=True, kw_only=True):
    expired: int


class JanitorLoop(Loop[ExpireReport]):
    """Retention of one partition."""

    def __init__(
        self, *, store: DeliveryStore, partition: int, clock: Clock, health: Health, rng: random.Random
    ) -> None:
        super().__init__(f"janitor-{partition}", clock, health)
        self._store = store
        self._partition = partition
        self._rng = rng

    async def step(self) -> ExpireReport:
        """Remove one batch."""
        return ExpireReport(expired=await self._store.expire(self._partition, EXPIRE_BATCH))

    def rest_ms(self, report: ExpireReport | None) -> float:
        if report is not None and report.expired >= EXPIRE_BATCH:
            return BUSY_INTERVAL_MS
        return IDLE_INTERVAL_MS * self._rng.uniform(1 - JITTER, 1 + JITTER)

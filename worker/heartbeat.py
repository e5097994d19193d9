"""Tells the store that this worker lives and how much it can hold, which is what lanes are admitted by."""

import msgspec

from qstash_clone.clock import Clock
from qstash_clone.storage.interface import DeliveryStore
from worker.health import Health
from worker.loop import Loop

INTERVAL_MS = 1_000


class HeartbeatReport(msgspec.Struct, frozen=True, kw_only=True):
    capacity: int


class HeartbeatLoop(Loop[HeartbeatReport]):
    """One report a second."""

    def __init__(self, *, store: DeliveryStore, consumer: str, capacity: int, clock: Clock, health: Health) -> None:
        super().__init__("heartbeat", clock, health)
        self._store = store
        self._consumer = consumer
        self._capacity = capacity

    def drain(self) -> None:
        """From now on this worker takes nothing more; said at once, so that nothing is admitted for it."""
        self._capacity = 0
        self.wake()

    async def step(self) -> HeartbeatReport:
        """Report once."""
        await self._store.heartbeat(self._consumer, self._capacity)
        return HeartbeatReport(capacity=self._capacity)

    def rest_ms(self, report: HeartbeatReport | None) -> float:
        return INTERVAL_MS

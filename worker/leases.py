"""Renews the leases held, stops attempts whose lease was lost, and says when reclaiming is fair."""

from collections.abc import Sequence

import msgspec

from qstash_clone.clock import Clock
from qstash_clone.errors import StorageError
from qstash_clone.storage.interface import DeliveryStore
from worker import telemetry
from worker.health import Health
from worker.holdings import Delivery, Holdings
from worker.loop import Loop

EXTEND_BATCH = 500
"""Claims per call: about half a millisecond in Redis."""
RENEWALS_PER_LEASE = 4


class ReclaimGate:
    """Closed for one lease after anything that may have aged the leases of live workers.

    Downtime and a jump of Redis's clock age every lease at once. The workers renew first; reclaiming before that
    would repeat deliveries that are under way.
    """

    def __init__(self, clock: Clock, lease_ms: int) -> None:
        self._clock = clock
        self._lease_ms = lease_ms
        self._opens_ms = clock.monotonic_ms() + lease_ms

    def close(self) -> None:
        """Reclaim nothing for one lease from now on."""
        self._opens_ms = self._clock.monotonic_ms() + self._lease_ms

    @property
    def is_open(self) -> bool:
        return self._clock.monotonic_ms() >= self._opens_ms


class LeaseReport(msgspec.Struct, frozen=True, kw_only=True):
    renewed: int
    lost: int


class LeaseLoop(Loop[LeaseReport]):
    """Renews four times per lease, so that three renewals may fail before a lease is lost."""

    NAME = "leases"

    def __init__(
        self, *, store: DeliveryStore, consumer: str, holdings: Holdings, lease_ms: int, clock: Clock, health: Health
    ) -> None:
        super().__init__(self.NAME, clock, health)
        self._store = store
        self._consumer = consumer
        self._holdings = holdings
        self._lease_ms = lease_ms

    async def step(self) -> LeaseReport:
        """Renew every lease held, a partition at a time; one that does not answer does not keep the others waiting
        for another pass."""
        renewed = lost = 0
        fault: StorageError | None = None
        for partition, deliveries in self._holdings.by_partition():
            for start in range(0, len(deliveries), EXTEND_BATCH):
                batch = deliveries[start : start + EXTEND_BATCH]
                try:
                    batch_lost = await self._extend(partition, batch)
                except StorageError as error:
                    fault = error
                    break
                renewed += len(batch) - batch_lost
                lost += batch_lost
        if fault is not None:
            raise fault
        return LeaseReport(renewed=renewed, lost=lost)

    async def _extend(self, partition: int, batch: Sequence[Delivery]) -> int:
        asked_ms = self._clock.monotonic_ms()
        lost_claims = await self._store.extend(partition, self._consumer, [delivery.claim for delivery in batch])
        lost = {(claim.id, claim.generation) for claim in lost_claims}
        count = 0
        for delivery in batch:
            if (delivery.claim.id, delivery.claim.generation) not in lost:
                delivery.lease_until_ms = asked_ms + self._lease_ms
            elif delivery in self._holdings:  # else it was settled while the call was under way
                count += 1
                self._lose(delivery)
        return count

    def _lose(self, delivery: Delivery) -> None:
        """Stop the attempt. One that is being settled goes on: whether it was settled or lost, that reply tells."""
        delivery.is_lost = True
        if delivery.abort():
            telemetry.lease_lost(delivery.claim, "while the attempt was under way")

    def rest_ms(self, report: LeaseReport | None) -> float:
        return self._lease_ms / RENEWALS_PER_LEASE

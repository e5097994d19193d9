"""Turns free capacity into claims: new entries of the ready stream, and expired leases on an interval."""

import math
import random
from collections.abc import Callable, Sequence

import msgspec

from qstash_clone.clock import Clock
from qstash_clone.domain.message import Claim
from qstash_clone.storage.interface import DeliveryStore
from worker import telemetry
from worker.health import Health
from worker.holdings import Slots
from worker.leases import ReclaimGate
from worker.loop import Loop
from worker.redis_clock import RedisClock

IDLE_WAIT_MS = 1_000
"""Longest blocking read: also how long a stop may wait for an idle worker."""
SCARCE_WAIT_MS = 20
"""Longest blocking read that holds the last free slot: an idle partition must not keep it from a busy one."""
FULL_WAIT_MS = 1_000
"""Longest wait for a free slot before the loop shows that it lives."""
CLAIM_BATCH = 50
"""Messages per call: half a millisecond in Redis. Larger ones save nothing, and all that one call returns is sent,
answered and settled in step, so that Redis and the worker take turns instead of working side by side."""
LINGER_MS = 2
"""After being full: the slots freed meanwhile are filled by one call instead of one call each. At 8,000 deliveries
per second that is 16 messages a call, and a full worker is never idle."""
RECLAIMS_PER_LEASE = 4
RECLAIM_JITTER = 0.25
"""Share by which the interval varies, so that workers started together do not look at the same moment."""


class ClaimReport(msgspec.Struct, frozen=True, kw_only=True):
    claimed: int
    dead_lettered: int
    has_more: bool
    """The call took all it asked for, so more is probably waiting."""


class ClaimLoop(Loop[ClaimReport]):
    """Takes messages of one partition, never more than there are free slots.

    While the stream has more than fits, one call per batch. When it is empty, a blocking read waits for the first
    new entry and the claim that follows takes whatever else has come; that read holds a single slot, so that idle
    partitions do not keep the slots that a busy one could use.
    """

    def __init__(
        self,
        *,
        store: DeliveryStore,
        partition: int,
        consumer: str,
        slots: Slots,
        gate: ReclaimGate,
        redis_clock: RedisClock,
        lease_ms: int,
        deliver: Callable[[Claim, str, float, float], None],
        on_doorbell: Callable[[], None],
        clock: Clock,
        health: Health,
        rng: random.Random,
    ) -> None:
        super().__init__(f"claim-{partition}", clock, health)
        self._store = store
        self._partition = partition
        self._consumer = consumer
        self._slots = slots
        self._gate = gate
        self._redis_clock = redis_clock
        self._lease_ms = lease_ms
        self._deliver = deliver
        self._on_doorbell = on_doorbell
        self._rng = rng
        self._handed_over = 0
        self._has_more = False
        self._taken: Sequence[bytes] = ()
        self._taken_ms = 0.0
        self._next_reclaim_ms = 0.0

    async def step(self) -> ClaimReport | None:
        """Fill the free slots, waiting a moment if nothing is ready; None if no slot is free."""
        held, self._handed_over = self._handed_over or self._slots.take(1), 0
        if not held:
            return None
        try:
            reclaim = self._gate.is_open and self._clock.monotonic_ms() >= self._next_reclaim_ms
            if not (self._taken or self._has_more or reclaim):
                self._taken_ms = self._clock.monotonic_ms()
                patience_ms = IDLE_WAIT_MS if self._slots.free else SCARCE_WAIT_MS
                self._taken = await self._store.wait(self._partition, self._consumer, 1, patience_ms)
                if not self._taken:
                    return ClaimReport(claimed=0, dead_lettered=0, has_more=False)
            held += self._slots.take(CLAIM_BATCH - 1)
            # Entries taken before a fault stay here until a claim has gone through: nobody else would look at them
            # for a lease. Their lease counts from before they were read.
            called_ms = self._clock.monotonic_ms()
            asked_ms = self._taken_ms if self._taken else called_ms
            batch = await self._store.claim(
                self._partition,
                self._consumer,
                held,
                taken=self._taken,
                reclaim=reclaim,
                reclaim_until_ms=self._redis_clock.now_ms() + self._lease_ms // RECLAIMS_PER_LEASE,
            )
            self._taken = ()
            if reclaim:
                self._next_reclaim_ms = self._clock.monotonic_ms() + self._reclaim_interval_ms()
            self._redis_clock.observe(batch.now_ms)
            lease_until_ms = asked_ms + self._lease_ms
            for claim in batch.claims:
                held -= 1
                start_until_ms = called_ms + (claim.start_within_ms or math.inf)
                self._deliver(claim, batch.signing_keys.current, lease_until_ms, start_until_ms)
            for message_id in batch.dead_lettered:
                telemetry.quarantined(message_id)
            if batch.rang:
                self._on_doorbell()
            self._has_more = held <= 0
            return ClaimReport(
                claimed=len(batch.claims), dead_lettered=len(batch.dead_lettered), has_more=self._has_more
            )
        finally:
            self._slots.give_back(held)

    def _reclaim_interval_ms(self) -> float:
        return self._lease_ms / RECLAIMS_PER_LEASE * self._rng.uniform(1 - RECLAIM_JITTER, 1 + RECLAIM_JITTER)

    def rest_ms(self, report: ClaimReport | None) -> float:
        """No rest while there is room."""
        return 0 if self._handed_over or self._slots.free or self._is_stopping else FULL_WAIT_MS

    async def rest(self, report: ClaimReport | None) -> None:
        """When full: wait for a slot in turn with the other partitions, and then long enough to gather some more."""
        pause_ms = self.rest_ms(report)
        if pause_ms:
            self._slots.line_up(self._receive_slot)
            await self._alarm.nap(pause_ms)
            if self._handed_over and not self._is_stopping:
                await self._clock.sleep(LINGER_MS)

    def _receive_slot(self) -> None:
        self._handed_over = 1
        self.wake()

"""Writes the end of an attempt, and tries again for as long as the lease may last."""

from qstash_clone.clock import Clock
from qstash_clone.domain.message import Settlement
from qstash_clone.errors import StorageError
from qstash_clone.storage.interface import DeliveryStore, SettleResult
from worker.health import Health
from worker.holdings import Delivery
from worker.leases import LeaseLoop
from worker.loop import Backoff


class Settler:
    """One `settle` per attempt; the store joins concurrent ones into one call.

    An attempt that has ended is never forgotten because Redis is away: repeating the settlement is harmless (an older
    generation changes nothing), while giving up means that the receiver sees the message again. So it is retried until
    the store says what became of it, until the store names the lease as lost, or until one settlement has been refused
    for a whole lease by a store that otherwise works: then the fault lies with this message, and the worker that
    reclaims it counts it towards the quarantine.
    """

    def __init__(self, *, store: DeliveryStore, lease_ms: int, clock: Clock, health: Health) -> None:
        self._store = store
        self._lease_ms = lease_ms
        self._clock = clock
        self._health = health

    async def settle(self, delivery: Delivery, settlement: Settlement) -> SettleResult | None:
        """What became of the settlement; None if it was given up and whoever reclaims the message decides.

        From the call on, `Delivery.abort` leaves the task alone.
        """
        delivery.is_settling = True
        try:
            return await self._store.settle(settlement)
        except StorageError:
            return await self._settle_again(delivery, settlement)

    async def _settle_again(self, delivery: Delivery, settlement: Settlement) -> SettleResult | None:
        backoff = Backoff()
        refused_ms = self._clock.monotonic_ms()
        while True:
            await self._clock.sleep(backoff.next_ms())
            # Known before this try: a lease that is lost because the first try went through (and only its reply did
            # not) is told apart by trying once more.
            is_hopeless = delivery.is_lost or (
                self._health.storage_answers(LeaseLoop.NAME)
                and self._clock.monotonic_ms() - refused_ms > self._lease_ms
            )
            try:
                return await self._store.settle(settlement)
            except StorageError:
                if is_hopeless:
                    return None

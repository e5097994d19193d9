"""Stores that fail on demand: before a call ("it was lost") or after it ("it worked, nobody heard")."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from qstash_clone.domain.message import Claim, Settlement
from qstash_clone.domain.schedules import Firing, StoredSchedule
from qstash_clone.domain.url_groups import UrlGroup
from qstash_clone.errors import StorageError, StorageUnavailable
from qstash_clone.ids import MessageId
from qstash_clone.storage.interface import FOR_EVER_MS, ClaimBatch, DeliveryStore, PromoteReport, SettleResult
from qstash_clone.storage.resources import DueSchedules, FireResult, FiringStore, UrlGroupStore

ResultT = TypeVar("ResultT")


class Faults:
    """Passes calls on, except those it was told to break."""

    def __init__(self) -> None:
        self._before: dict[str, list[StorageError]] = {}
        self._after: dict[str, list[StorageError]] = {}
        self.is_down = False
        """Every call fails, like a Redis that is away."""
        self.fault_share = 0.0
        """This share of all calls is lost, and of as many the reply is."""
        self.rng = random.Random(1)
        self.calls: Counter[str] = Counter()
        self.on_call: Callable[[str], None] = lambda name: None

    def fail_before(self, name: str, times: int = 1, error: StorageError | None = None) -> None:
        """The next calls of this method raise and do nothing."""
        self._before.setdefault(name, []).extend([error or StorageUnavailable("Lost on the way.")] * times)

    def fail_after(self, name: str, times: int = 1, error: StorageError | None = None) -> None:
        """The next calls of this method do their work and raise."""
        self._after.setdefault(name, []).extend([error or StorageUnavailable("The reply was lost.")] * times)

    async def _through(self, name: str, call: Callable[[], Awaitable[ResultT]]) -> ResultT:
        self.calls[name] += 1
        self.on_call(name)
        if self.is_down:
            raise StorageUnavailable("Redis is away.")
        if self.rng.random() < self.fault_share:
            raise StorageUnavailable("Lost on the way, by chance.")
        if self._before.get(name):
            raise self._before[name].pop()
        result = await call()
        if self.rng.random() < self.fault_share:
            raise StorageUnavailable("The reply was lost, by chance.")
        if self._after.get(name):
            raise self._after[name].pop()
        return result


class FaultyStore(Faults):
    """A `DeliveryStore`."""

    def __init__(self, inner: DeliveryStore) -> None:
        super().__init__()
        self._inner = inner
        self.patience_ms: list[int] = []
        """Of each blocking read."""

    @property
    def partitions(self) -> int:
        return self._inner.partitions

    def new_message_id(self, partition: int) -> MessageId:
        return self._inner.new_message_id(partition)

    async def heartbeat(self, consumer: str, capacity: int) -> None:
        await self._through("heartbeat", lambda: self._inner.heartbeat(consumer, capacity))

    async def leave(self, consumer: str) -> None:
        await self._through("leave", lambda: self._inner.leave(consumer))

    async def wait(self, partition: int, consumer: str, limit: int, timeout_ms: int) -> Sequence[bytes]:
        self.patience_ms.append(timeout_ms)
        return await self._through("wait", lambda: self._inner.wait(partition, consumer, limit, timeout_ms))

    async def claim(
        self,
        partition: int,
        consumer: str,
        limit: int,
        *,
        taken: Sequence[bytes] = (),
        reclaim: bool = False,
        reclaim_until_ms: int = FOR_EVER_MS,
    ) -> ClaimBatch:
        return await self._through(
            "reclaim" if reclaim else "claim",
            lambda: self._inner.claim(
                partition, consumer, limit, taken=taken, reclaim=reclaim, reclaim_until_ms=reclaim_until_ms
            ),
        )

    async def fetch_body(self, claim: Claim) -> bytes:
        return await self._through("fetch_body", lambda: self._inner.fetch_body(claim))

    async def extend(self, partition: int, consumer: str, claims: Sequence[Claim]) -> list[Claim]:
        return await self._through("extend", lambda: self._inner.extend(partition, consumer, claims))

    async def settle(self, settlement: Settlement) -> SettleResult:
        return await self._through("settle", lambda: self._inner.settle(settlement))

    async def release(self, claims: Sequence[Claim]) -> None:
        await self._through("release", lambda: self._inner.release(claims))

    async def promote(self, partition: int, limit: int) -> PromoteReport:
        return await self._through("promote", lambda: self._inner.promote(partition, limit))

    async def expire(self, partition: int, limit: int) -> int:
        return await self._through("expire", lambda: self._inner.expire(partition, limit))


class FaultyFiringStore(Faults):
    """A `FiringStore`."""

    def __init__(self, inner: FiringStore) -> None:
        super().__init__()
        self._inner = inner

    async def due_schedules(self, partition: int, limit: int, spread: float) -> DueSchedules:
        return await self._through("due_schedules", lambda: self._inner.due_schedules(partition, limit, spread))

    def new_firing_ids(self, stored: StoredSchedule, instant_ms: int, urls: Sequence[str]) -> Sequence[MessageId]:
        return self._inner.new_firing_ids(stored, instant_ms, urls)

    async def fire(self, firings: Sequence[Firing]) -> list[FireResult | Exception]:
        return await self._through("fire", lambda: self._inner.fire(firings))

    async def postpone(self, stored: StoredSchedule, delay_ms: int) -> None:
        await self._through("postpone", lambda: self._inner.postpone(stored, delay_ms))


class FaultyUrlGroupStore(Faults):
    """A `UrlGroupStore`, as far as workers use it."""

    def __init__(self, inner: UrlGroupStore) -> None:
        super().__init__()
        self._inner = inner

    async def list_url_groups(self) -> list[UrlGroup]:
        return await self._inner.list_url_groups()

    async def get_url_group(self, name: str) -> UrlGroup | None:
        return await self._through("get_url_group", lambda: self._inner.get_url_group(name))

    async def change_url_group(
        self, name: str, change: Callable[[UrlGroup | None, int], UrlGroup | None]
    ) -> UrlGroup | None:
        return await self._inner.change_url_group(name, change)

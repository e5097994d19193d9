"""One worker on a real store, with a clock that tests move and a transport that they answer."""

import asyncio
import dataclasses
import heapq
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio

from qstash_clone.clock import Clock
from qstash_clone.domain.delivery import OutgoingRequest
from qstash_clone.domain.message import Claim, Extras, Message, NewMessage, State
from qstash_clone.domain.outcome import AttemptResult
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import CONSUMER_GROUP, PartitionKeys
from qstash_clone.storage.store import Store
from qstash_clone.topics.interface import TopicRetention
from tests.support.faulty_store import FaultyFiringStore, FaultyStore, FaultyUrlGroupStore
from worker.assembly import Worker, assemble, new_consumer_name
from worker.claim import ClaimLoop
from worker.health import Health
from worker.scheduler import ScheduleLoop


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self._ms = 1_000_000.0
        self._moved_ms = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + int(self._moved_ms)

    def monotonic_ms(self) -> float:
        return self._ms

    async def sleep(self, duration_ms: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._ms + duration_ms, next(self._numbers), future))
        await future

    def advance(self, duration_ms: float) -> None:
        """Move on, and wake whoever slept until then."""
        self._ms += duration_ms
        self._moved_ms += duration_ms
        while self._sleepers and self._sleepers[0][0] <= self._ms:
            future = heapq.heappop(self._sleepers)[2]
            if not future.done():
                future.set_result(None)

    @property
    def sleeping(self) -> int:
        """How many wait for the clock to move."""
        return sum(not future.done() for _, _, future in self._sleepers)


class FakeTransport:
    """Answers as told; by default at once with 200."""

    def __init__(self) -> None:
        self.requests: list[OutgoingRequest] = []
        self.cancelled = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.answer: Callable[[OutgoingRequest], Awaitable[AttemptResult]] = self.ok

    async def ok(self, request: OutgoingRequest) -> AttemptResult:
        return AttemptResult(status=200, body=b"fine", duration_ms=1)

    async def fail(self, request: OutgoingRequest) -> AttemptResult:
        return AttemptResult(status=500, body=b"broken", duration_ms=1)

    async def send(self, request: OutgoingRequest, timeout_ms: int) -> AttemptResult:
        self.requests.append(request)
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await self.answer(request)

    @property
    def bodies(self) -> list[bytes]:
        return [request.body for request in self.requests]


@dataclasses.dataclass(kw_only=True)
class Rig:
    """A worker and everything around it."""

    settings: Settings
    real_store: Store
    store: FaultyStore
    firings: FaultyFiringStore
    url_groups: FaultyUrlGroupStore
    clock: ManualClock
    transport: FakeTransport
    health: Health
    worker: Worker
    consumer: str
    raw: "redis.asyncio.Redis"

    @property
    def claims(self) -> ClaimLoop:
        return self.worker.loops.claims[0]

    @property
    def scheduler(self) -> ScheduleLoop:
        return self.worker.loops.schedulers[0]

    @property
    def keys(self) -> PartitionKeys:
        return PartitionKeys(self.settings.key_namespace, 0, self.settings.partitions)

    async def start(self) -> None:
        """Be known to the store, so that messages are admitted for this worker."""
        await self.worker.loops.heartbeat.step()

    async def publish(
        self,
        body: bytes = b"body",
        *,
        url: str = "http://receiver.example/path",
        retries: int = 3,
        delay_ms: int = 0,
        retry_delay: str | None = None,
        extras: Extras | None = None,
        lane: str | None = None,
    ) -> MessageId:
        """A stored message."""
        message_id = self.real_store.publishing.new_message_id()
        await self.real_store.publishing.publish(
            NewMessage(
                id=message_id,
                message=Message(
                    url=url,
                    max_retries=retries,
                    caller_ip="10.0.0.1",
                    retry_delay_expression=retry_delay,
                    extras=extras,
                ),
                body=body,
                lane=lane or "h:" + url.split("/")[2],
                delay_ms=delay_ms,
            )
        )
        return message_id

    async def state(self, message_id: MessageId) -> State | None:
        """Where the message is in its life; None once it is gone or cancelled."""
        stored = await self.real_store.admin.get_message(message_id)
        return None if stored is None else stored.state

    async def deliver_all(self) -> None:
        """Deliver what is ready, and what that leads to."""
        seen = -1
        while seen < self.store.calls["settle"]:
            seen = self.store.calls["settle"]
            await self.claims.step()
            await self.idle()

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        await self.worker.holdings.empty()

    async def age_leases(self) -> None:
        """Make the lease of every pending entry run out."""
        ready = self.keys.ready.decode()
        pending: list[dict[str, Any]] = await self.raw.xpending_range(ready, CONSUMER_GROUP, "-", "+", 10_000)  # pyright: ignore
        for entry in pending:
            await self.raw.xclaim(  # pyright: ignore
                ready,
                CONSUMER_GROUP,
                entry["consumer"].decode(),
                0,
                [entry["message_id"]],
                idle=self.settings.lease_ms + 1,
                justid=True,
            )

    async def steal(self) -> list[Claim]:
        """Another worker takes everything over, as if the leases had run out."""
        await self.age_leases()
        batch = await self.real_store.delivery.claim(0, "thief", 10_000, reclaim=True)
        return batch.claims

    def open_gate(self) -> None:
        """Let time pass until reclaiming is allowed."""
        self.clock.advance(self.settings.lease_ms + 1)


def build_rig(settings: Settings, store: Store, raw: "redis.asyncio.Redis", clock: ManualClock | None = None) -> Rig:
    clock = clock or ManualClock()
    faulty = FaultyStore(store.delivery)
    transport = FakeTransport()
    consumer = new_consumer_name()
    firings, url_groups = FaultyFiringStore(store.schedules), FaultyUrlGroupStore(store.url_groups)
    worker, health = build_worker(settings, faulty, transport, clock, consumer, firings, url_groups, store.topics)
    return Rig(
        settings=settings,
        real_store=store,
        store=faulty,
        firings=firings,
        url_groups=url_groups,
        clock=clock,
        transport=transport,
        health=health,
        worker=worker,
        consumer=consumer,
        raw=raw,
    )


def build_worker(
    settings: Settings,
    store: FaultyStore,
    transport: FakeTransport,
    clock: Clock,
    consumer: str,
    firings: FaultyFiringStore,
    url_groups: FaultyUrlGroupStore,
    topics: TopicRetention,
) -> tuple[Worker, Health]:
    health = Health(clock)
    worker = assemble(
        settings,
        store=store,
        schedules=firings,
        url_groups=url_groups,
        topics=topics,
        transport=transport,
        clock=clock,
        health=health,
        consumer=consumer,
        rng=random.Random(1),
    )
    return worker, health

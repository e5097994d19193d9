"""Starts the loops of a worker, and stops them upstream to downstream so that nothing is lost and little repeated."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

from qstash_clone.clock import Clock
from qstash_clone.errors import QstashCloneError, StorageError
from qstash_clone.observability import LOOP_FAILED, WORKER_DRAINING, WORKER_STARTED, WORKER_STOPPED, describe, emit
from qstash_clone.storage.interface import DeliveryStore
from worker.claim import ClaimLoop
from worker.events import ATTEMPTS_RELEASED
from worker.health import Health
from worker.heartbeat import HeartbeatLoop
from worker.holdings import Delivery, Holdings
from worker.janitor import JanitorLoop
from worker.leases import LeaseLoop
from worker.loop import Loop
from worker.scheduler import ScheduleLoop
from worker.timers import TimerLoop
from worker.topic_janitor import TopicJanitorLoop

HAND_BACK_SHARE = 0.2
"""Of the grace period is kept for handing back what did not finish: a few calls to the store."""
LAST_CALLS_MS = 2_000
"""For what has to be said to the store after the deliveries have ended, when the grace period is used up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loops:
    """The roles of one worker."""

    heartbeat: HeartbeatLoop
    leases: LeaseLoop
    claims: Sequence[ClaimLoop]
    timers: Sequence[TimerLoop]
    schedulers: Sequence[ScheduleLoop]
    janitors: Sequence[JanitorLoop]
    topic_janitor: TopicJanitorLoop

    def all(self) -> list[Loop[Any]]:
        background = [*self.timers, *self.schedulers, *self.janitors, self.topic_janitor]
        return [self.heartbeat, self.leases, *self.claims, *background]


class Supervisor:
    """Runs one worker from its first heartbeat until it has left.

    The store and the transport belong to the caller, who closes them afterwards.
    """

    def __init__(
        self,
        *,
        store: DeliveryStore,
        consumer: str,
        loops: Loops,
        holdings: Holdings,
        health: Health,
        clock: Clock,
        shutdown_grace_ms: int,
    ) -> None:
        self._store = store
        self._consumer = consumer
        self._loops = loops
        self._holdings = holdings
        self._health = health
        self._clock = clock
        self._grace_ms = shutdown_grace_ms
        self._stop_requested = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def request_stop(self) -> None:
        """Begin to drain; `run` returns when that is done."""
        self._stop_requested.set()

    async def run(self) -> None:
        """Deliver until a stop is requested or a loop fails; drain in either case, then raise what made it fail."""
        emit(WORKER_STARTED, consumer=self._consumer, partitions=self._store.partitions)
        for loop in self._loops.all():
            self._tasks[loop.name] = asyncio.create_task(loop.run(), name=loop.name)
        stop = asyncio.create_task(self._stop_requested.wait())
        try:
            await asyncio.wait([stop, *self._tasks.values()], return_when=asyncio.FIRST_COMPLETED)
            failure = self._first_failure()
            await self._shut_down()
        finally:
            stop.cancel()
            for task in self._tasks.values():
                task.cancel()
        emit(WORKER_STOPPED, consumer=self._consumer)
        if failure is not None:
            raise failure

    def _first_failure(self) -> BaseException | None:
        """Why a loop ended although nobody stopped it."""
        for name, task in self._tasks.items():
            error = task.exception() if task.done() and not task.cancelled() else None
            if error is not None:
                details = {} if isinstance(error, QstashCloneError) else {"traceback": describe(error)}
                emit(LOOP_FAILED, level=logging.CRITICAL, loop=name, error=str(error), **details)
                return error
        return None

    async def _shut_down(self) -> None:
        """Claims end, deliveries drain, settlements finish, the rest is handed back, leases stop, the worker leaves."""
        ends_ms = self._clock.monotonic_ms() + self._grace_ms
        drain_ends_ms = ends_ms - self._grace_ms * HAND_BACK_SHARE
        self._health.is_stopping = True
        emit(WORKER_DRAINING, consumer=self._consumer, in_flight=len(self._holdings))
        self._loops.heartbeat.drain()
        loops = self._loops
        janitors = [*loops.janitors, loops.topic_janitor]
        await self._stop([*loops.claims, *loops.timers, *loops.schedulers, *janitors], drain_ends_ms)
        await self._within(self._holdings.empty(), drain_ends_ms)
        if len(self._holdings):
            await self._hand_back(max(ends_ms, self._clock.monotonic_ms() + LAST_CALLS_MS))
        last_ms = max(ends_ms, self._clock.monotonic_ms() + LAST_CALLS_MS)
        await self._stop([self._loops.heartbeat], last_ms)
        await self._within(self._leave(), last_ms)
        await self._stop([self._loops.leases], last_ms)

    async def _stop(self, loops: Sequence[Loop[Any]], until_ms: float) -> None:
        """Let loops end their pass; one that does not in time is cancelled, and the leases of what it may just have
        claimed run out."""
        for loop in loops:
            loop.stop()
        tasks = [self._tasks[loop.name] for loop in loops]
        await self._within(asyncio.wait(tasks), until_ms)
        for task in tasks:
            task.cancel()

    async def _hand_back(self, until_ms: float) -> None:
        """End the attempts that still run and give their messages to other workers at once, no attempt used. What is
        being settled gets the rest of the time; after that its lease decides."""
        aborted = [delivery for delivery in self._holdings.all() if delivery.abort()]
        tasks = [delivery.task for delivery in aborted if delivery.task is not None]
        if tasks:
            await self._within(asyncio.wait(tasks), until_ms)
        await self._within(self._release(aborted), until_ms)
        await self._within(self._holdings.empty(), until_ms)
        for delivery in self._holdings.all():
            if delivery.task is not None:
                delivery.task.cancel()

    async def _release(self, deliveries: Sequence[Delivery]) -> None:
        for partition in range(self._store.partitions):
            claims = [delivery.claim for delivery in deliveries if delivery.claim.partition == partition]
            if not claims:
                continue
            try:
                await self._store.release(claims)
                emit(ATTEMPTS_RELEASED, level=logging.WARNING, count=len(claims))
            except StorageError as error:
                emit(ATTEMPTS_RELEASED, level=logging.ERROR, count=0, unreleased=len(claims), error=str(error))

    async def _leave(self) -> None:
        try:
            await self._store.leave(self._consumer)
        except StorageError as error:
            # Its heartbeats have ended, which says the same a little later.
            emit(WORKER_STOPPED, level=logging.WARNING, consumer=self._consumer, error=str(error))

    async def _within(self, awaitable: Awaitable[object], until_ms: float) -> None:
        """Wait for something until a moment, then leave it; what it raises passes through."""
        work = asyncio.ensure_future(awaitable)
        timer = asyncio.ensure_future(self._clock.sleep(max(0, until_ms - self._clock.monotonic_ms())))
        try:
            await asyncio.wait([work, timer], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            timer.cancel()
            work.cancel()

"""Kills processes under load, again and again, and keeps account of what that may have repeated."""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from tests.faults.inspection import Inspector
from tests.support.eventually import eventually
from tests.support.processes import Api, Process, System, Worker
from tests.support.redis_server import RedisServer

RESTART_PAUSE_S = (0.0, 0.5)


@dataclass(slots=True, kw_only=True)
class Kills:
    """What was killed, and what it had in its hands."""

    count: Counter[str] = field(default_factory=Counter[str])
    in_flight_at: list[int] = field(default_factory=list[int])
    """How much was under way in what was killed, at each kill."""
    in_flight: set[str] = field(default_factory=set[str])
    """Ids of messages that were in flight in something when it was killed: these may arrive again."""
    stood_still: set[str] = field(default_factory=set[str])
    """Ids of messages in flight in a worker that was paused for so long that its leases may have run out: another one
    may have taken them over while they were under way."""

    def __str__(self) -> str:
        return f"{self.count.total()}: " + ", ".join(f"{count} {what}" for what, count in sorted(self.count.items()))


class Killer:
    """Ends processes of one system with kill -9 and starts them again.

    It waits until enough is under way in what it is about to kill: what does nothing has nothing to lose.
    """

    def __init__(
        self,
        system: System,
        redis_server: RedisServer,
        inspector: Inspector,
        rng: random.Random,
        *,
        min_in_flight: int,
        open_publishes: Callable[[Api], int],
    ) -> None:
        self.kills = Kills()
        self.needs_publishes = False
        """It waits for publishes to be under way: publishers go on even if there is enough already."""
        self._system = system
        self._redis = redis_server
        self._inspector = inspector
        self._rng = rng
        self._min_in_flight = min_in_flight
        self._open_publishes = open_publishes

    async def kill_all(self, count: int) -> None:
        """So many kills, of workers, apis and Redis."""
        # The same number of each, in random order, rather than a die that may never show Redis.
        kinds = [("worker", "api", "redis")[number % 3] for number in range(count)]
        self._rng.shuffle(kinds)
        for kind in kinds:
            await self._pause()
            match kind:
                case "worker":
                    await self.kill_worker()
                case "api":
                    await self.kill_api()
                case _:
                    await self.kill_redis()

    async def kill_worker(self) -> None:
        """One worker, chosen by chance."""
        worker = self._rng.choice(self._system.workers)
        while True:
            await eventually(lambda: self._is_busy(worker), timeout=60, what="messages in flight in one worker")
            # It stands still while it is looked at, so that what it holds is exactly known.
            held = await self._inspector.in_flight(worker.pid)
            paused_s = time.monotonic()
            await asyncio.to_thread(worker.pause)
            in_flight = await self._inspector.in_flight(worker.pid)
            if time.monotonic() - paused_s > worker.settings.lease_ms / 2000:
                # On a busy machine looking may take so long that leases are lost over it.
                self.kills.stood_still |= held | in_flight
            if len(in_flight) >= self._min_in_flight:
                break
            worker.resume()
        self._note("worker", len(in_flight), in_flight)
        await asyncio.to_thread(worker.kill)
        await self._restart(worker)

    async def _is_busy(self, worker: Worker) -> bool:
        assert worker.is_running, f"a worker ended by itself:\n{worker.log_text()[-1000:]}"
        return await self._count_in_flight(worker.pid) >= self._min_in_flight

    async def kill_api(self) -> None:
        """One api, chosen by chance."""
        api = self._rng.choice(self._system.apis)
        self.needs_publishes = True
        await eventually(
            lambda: api.is_running and self._open_publishes(api) >= self._min_in_flight,
            timeout=60,
            what="open publishes",
        )
        self._note("api", self._open_publishes(api), set())
        os.kill(api.pid, 9)
        self.needs_publishes = False
        await asyncio.to_thread(api.wait)
        await self._restart(api)

    async def kill_redis(self) -> None:
        """Redis, which is away for a moment."""

        async def is_busy() -> bool:
            return await self._count_in_flight() >= self._min_in_flight

        await eventually(is_busy, timeout=60, what="messages in flight")
        self._note("redis", await self._count_in_flight(), set())
        await asyncio.to_thread(self._redis.kill)
        await self._inspector.aclose()
        await self._pause()
        await asyncio.to_thread(self._redis.start)
        # What is unsettled once it is back was in flight during the outage.
        self.kills.in_flight |= await self._inspector.in_flight()

    def _note(self, kind: str, in_flight_count: int, in_flight: set[str]) -> None:
        self.kills.count[kind] += 1
        self.kills.in_flight_at.append(in_flight_count)
        self.kills.in_flight |= in_flight

    async def _restart(self, process: Process) -> None:
        await self._pause()
        process.start()

    async def _pause(self) -> None:
        await asyncio.sleep(self._rng.uniform(*RESTART_PAUSE_S))

    async def _count_in_flight(self, pid: int | None = None) -> int:
        try:
            return await self._inspector.count_in_flight(pid)
        except (RedisError, OSError):
            return 0

"""A driver that publishes, kills processes in random order, and accounts for every message in ledgers."""

import asyncio
import contextlib
import os
import random
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from redis.exceptions import RedisError

from tests.faults.bodies import body_of
from tests.faults.inspection import Inspector, Remains
from tests.support.eventually import eventually
from tests.support.ledger import Ledger, LedgerReader
from tests.support.processes import Api, Process, System, Worker, free_port
from tests.support.redis_server import RedisServer

PUBLISHERS = 64
MAX_OUTSTANDING = 300
"""Acknowledged and not arrived yet: publishers wait above this, so that what is killed has something to lose."""
MIN_IN_FLIGHT = 10
"""Nothing is killed with less."""
ANSWER_DELAY_MS = (20, 120)
DRAINED_WITHIN_S = 60.0
RESTART_PAUSE_S = (0.0, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is to be broken."""

    kills: int = 20
    messages: int = 10_000
    seed: int = 1


@dataclass(slots=True, kw_only=True)
class Account:
    """What the ledgers say in the end."""

    plan: Plan
    kills: Counter[str] = field(default_factory=Counter[str])
    in_flight_at_kills: list[int] = field(default_factory=list[int])
    refused: int = 0
    """Publishes answered 503."""
    unanswered: int = 0
    """Publishes whose connection broke."""
    acknowledged: dict[str, str] = field(default_factory=dict[str, str])
    """Key to message id."""
    asked_again: set[str] = field(default_factory=set[str])
    """Keys that were published more than once, because an earlier try was not acknowledged."""
    arrivals: dict[str, list[str]] = field(default_factory=lambda: defaultdict[str, list[str]](list))
    """Key to the message ids that it arrived under, in order."""
    corrupt: int = 0
    retried: int = 0
    """Arrivals that were not a first attempt."""
    in_flight: set[str] = field(default_factory=set[str])
    """Ids that were in flight in something when it was killed."""
    lost_leases: set[str] = field(default_factory=set[str])
    """Ids whose worker was too slow to renew, by the workers' logs."""
    remains: Remains | None = None
    duration_s: float = 0.0
    drain_s: float = 0.0

    @property
    def lost(self) -> set[str]:
        """Keys that were acknowledged and never arrived."""
        return self.acknowledged.keys() - self.arrivals.keys()

    @property
    def arrivals_by_id(self) -> Counter[str]:
        return Counter(message_id for ids in self.arrivals.values() for message_id in ids)

    @property
    def duplicates(self) -> dict[str, int]:
        """Message ids that arrived more than once, and how often too many."""
        return {message_id: count - 1 for message_id, count in self.arrivals_by_id.items() if count > 1}

    @property
    def published_twice(self) -> set[str]:
        """Keys that were stored under more than one id: the answer to the first publish was lost."""
        return {key for key, ids in self.arrivals.items() if len(set(ids)) > 1}

    @property
    def unexplained(self) -> set[str]:
        """Duplicates of messages that were not in flight when anything was killed."""
        return self.duplicates.keys() - self.in_flight - self.lost_leases

    def table(self) -> str:
        """The account for people."""
        kills = ", ".join(f"{count} {what}" for what, count in sorted(self.kills.items()))
        duplicates = self.duplicates
        rows = [
            ("kills (kill -9)", f"{self.kills.total()}: {kills}"),
            ("in flight at each kill", f"{min(self.in_flight_at_kills)} to {max(self.in_flight_at_kills)}"),
            ("acknowledged", len(self.acknowledged)),
            ("publishes answered 503 / unanswered", f"{self.refused} / {self.unanswered}"),
            ("arrived", len(self.arrivals)),
            ("lost", len(self.lost)),
            ("duplicate arrivals", f"{sum(duplicates.values())} of {len(duplicates)} messages"),
            ("  in flight in something killed", len(duplicates.keys() & self.in_flight)),
            ("  after a lost lease only", len((duplicates.keys() & self.lost_leases) - self.in_flight)),
            ("  unexplained", len(self.unexplained)),
            ("stored twice, first answer lost", len(self.published_twice)),
            ("damaged", self.corrupt),
            ("dead letters", self.remains.dead_letters if self.remains else "?"),
            ("left in the store", self.remains if self.remains and not self.remains.is_empty else "nothing"),
            ("duration", f"{self.duration_s:.0f} s, of which draining {self.drain_s:.1f} s"),
            ("seed", self.plan.seed),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


class Chaos:
    """One run of a plan."""

    def __init__(self, plan: Plan, system: System, redis_server: RedisServer, folder: Path) -> None:
        self.account = Account(plan=plan)
        self._plan = plan
        self._system = system
        self._redis = redis_server
        self._rng = random.Random(plan.seed)
        self._inspector = Inspector(system.settings)
        self._arrived_path = folder / "arrived"
        self._arrivals = LedgerReader(self._arrived_path)
        self._acknowledged_path = folder / "acknowledged"
        self._receiver_port = free_port()
        self._open_publishes: Counter[Api] = Counter()
        self._is_flooding = False
        self._has_enough = False
        self._keys = 0

    async def run(self) -> Account:
        """Publish and kill until the plan is fulfilled, let everything drain, and read the ledgers."""
        started_s = time.monotonic()
        receiver = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.receiver_process",
            str(self._receiver_port), str(self._arrived_path), *(str(delay) for delay in ANSWER_DELAY_MS),
        )  # fmt: skip
        acknowledged = Ledger(self._acknowledged_path)
        try:
            await eventually(self._receiver_listens)
            async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
                for number in range(PUBLISHERS):
                    group.create_task(self._publish(session, acknowledged, number))
                group.create_task(self._count_arrivals())
                await self._kill_all()
                await eventually(lambda: len(self.account.acknowledged) >= self._plan.messages, timeout=300)
                self._has_enough = True
            drain_s = time.monotonic()
            await eventually(self._is_complete, timeout=DRAINED_WITHIN_S, what="everything arrived and was settled")
            self.account.drain_s = time.monotonic() - drain_s
        finally:
            receiver.kill()
            await receiver.wait()
            acknowledged.close()
            self._read_ledgers()
            with contextlib.suppress(RedisError, OSError):
                self.account.remains = await self._inspector.remains()
            await self._inspector.aclose()
            self.account.duration_s = time.monotonic() - started_s
        return self.account

    async def _receiver_listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._receiver_port)
        except OSError:
            return False
        writer.close()
        return True

    # Publishing.

    async def _publish(self, session: aiohttp.ClientSession, acknowledged: Ledger, number: int) -> None:
        while not self._has_enough:
            if not self._is_flooding and len(self.account.acknowledged) - len(self.account.arrivals) > MAX_OUTSTANDING:
                await asyncio.sleep(0.01)
                continue
            self._keys += 1
            key = f"k{self._keys}"
            tries = 0
            while (message_id := await self._try_publish(session, key, number + tries)) is None:
                self.account.asked_again.add(key)
                tries += 1
                await asyncio.sleep(0.05)
            acknowledged.record("acknowledged", key, message_id)
            self.account.acknowledged[key] = message_id

    async def _try_publish(self, session: aiohttp.ClientSession, key: str, number: int) -> str | None:
        """The message's id, or None if it was not acknowledged."""
        api = self._system.apis[number % len(self._system.apis)]
        self._open_publishes[api] += 1
        try:
            async with session.post(
                f"{api.url}/v2/publish/http://127.0.0.1:{self._receiver_port}/",
                data=body_of(key),
                headers={"Authorization": f"Bearer {self._system.settings.token}"},
            ) as answer:
                fields = await answer.json()
                if answer.status == 200:
                    return fields["messageId"]
                assert answer.status == 503, (answer.status, fields)
                assert "Retry-After" in answer.headers
                self.account.refused += 1
        except aiohttp.ClientError:
            self.account.unanswered += 1
        finally:
            self._open_publishes[api] -= 1
        return None

    async def _count_arrivals(self) -> None:
        while not self._has_enough:
            self._read_arrivals()
            await asyncio.sleep(0.02)

    # Killing.

    async def _kill_all(self) -> None:
        # The same number of each, in random order, rather than a die that may never show Redis.
        kinds = [("worker", "api", "redis")[number % 3] for number in range(self._plan.kills)]
        self._rng.shuffle(kinds)
        for kind in kinds:
            await asyncio.sleep(self._rng.uniform(*RESTART_PAUSE_S))
            match kind:
                case "worker":
                    await self._kill_worker(self._rng.choice(self._system.workers))
                case "api":
                    await self._kill_api(self._rng.choice(self._system.apis))
                case _:
                    await self._kill_redis()
            self.account.kills[kind] += 1

    async def _kill_worker(self, worker: Worker) -> None:
        async def is_busy() -> bool:
            assert worker.is_running, f"a worker ended by itself:\n{worker.log_text()[-1000:]}"
            return await self._count_in_flight(worker.pid) >= MIN_IN_FLIGHT

        while True:
            await eventually(is_busy, timeout=60, what=f"{MIN_IN_FLIGHT} messages in flight in one worker")
            # It stands still while it is looked at, so that what it holds is exactly known.
            await asyncio.to_thread(worker.pause)
            in_flight = await self._inspector.in_flight(worker.pid)
            if len(in_flight) >= MIN_IN_FLIGHT:
                break
            worker.resume()
        self.account.in_flight_at_kills.append(len(in_flight))
        self.account.in_flight |= in_flight
        await asyncio.to_thread(worker.kill)
        await self._restart(worker)

    async def _kill_api(self, api: Api) -> None:
        self._is_flooding = True
        await eventually(
            lambda: api.is_running and self._open_publishes[api] >= MIN_IN_FLIGHT, timeout=60, what="open publishes"
        )
        self.account.in_flight_at_kills.append(self._open_publishes[api])
        os.kill(api.pid, 9)
        self._is_flooding = False
        await asyncio.to_thread(api.wait)
        await self._restart(api)

    async def _kill_redis(self) -> None:
        async def in_flight() -> int:
            count = await self._count_in_flight()
            return count if count >= MIN_IN_FLIGHT else 0

        self.account.in_flight_at_kills.append(
            await eventually(in_flight, timeout=60, what=f"{MIN_IN_FLIGHT} messages in flight")
        )
        await asyncio.to_thread(self._redis.kill)
        await self._inspector.aclose()
        await asyncio.sleep(self._rng.uniform(*RESTART_PAUSE_S))
        await asyncio.to_thread(self._redis.start)
        # What is unsettled once it is back was in flight during the outage.
        self.account.in_flight |= await self._inspector.in_flight()

    async def _restart(self, process: Process) -> None:
        await asyncio.sleep(self._rng.uniform(*RESTART_PAUSE_S))
        process.start()

    async def _count_in_flight(self, pid: int | None = None) -> int:
        try:
            return await self._inspector.count_in_flight(pid)
        except (RedisError, OSError):
            return 0

    # The end.

    async def _is_complete(self) -> bool:
        self._read_arrivals()
        return not self.account.lost and (await self._inspector.remains()).is_empty

    def _read_arrivals(self) -> None:
        account = self.account
        for _, key, message_id, retried in self._arrivals.new_facts():
            if key == "corrupt":
                account.corrupt += 1
            else:
                account.arrivals[key].append(message_id)
            account.retried += retried != "0"

    def _read_ledgers(self) -> None:
        self._read_arrivals()
        account = self.account
        account.acknowledged = {
            key: message_id for _, key, message_id in LedgerReader(self._acknowledged_path).new_facts()
        }
        account.lost_leases = {
            event["message_id"] for worker in self._system.workers for event in worker.events("lease.lost")
        }

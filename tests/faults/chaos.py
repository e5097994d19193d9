"""A driver that publishes all kinds of messages, kills processes in random order, and accounts for every message."""

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
from redis.exceptions import RedisError

from tests.faults.account import Account
from tests.faults.inspection import Inspector
from tests.faults.killing import Killer
from tests.faults.load import GROUP, PARALLELISM, QUEUES, Kind, Orders, Publishers
from tests.faults.recording import ReceiverProcess
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.ledger import Ledger, LedgerReader
from tests.support.processes import System
from tests.support.redis_server import RedisServer

PUBLISHERS = 64
MAX_OUTSTANDING = 300
"""Acknowledged and not arrived yet: publishers wait above this, so that what is killed has something to lose."""
MIN_IN_FLIGHT = 10
"""Nothing is killed with less."""
DRAINED_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is to be broken."""

    kills: int = 20
    messages: int = 10_000
    seed: int = 1


class Chaos:
    """One run of a plan."""

    def __init__(self, plan: Plan, system: System, redis_server: RedisServer, folder: Path) -> None:
        self._plan = plan
        self._system = system
        self._folder = folder
        self._receiver = ReceiverProcess(folder)
        self._client = Client(system.url, system.settings)
        self._inspector = Inspector(system.settings)
        self._acknowledged = Ledger(folder / "acknowledged")
        rng = random.Random(plan.seed)
        self._orders = Orders(receiver=self._receiver, rng=rng)
        self._publishers = Publishers(system, self._orders, self._acknowledged)
        self._killer = Killer(
            system,
            redis_server,
            self._inspector,
            rng,
            min_in_flight=MIN_IN_FLIGHT,
            open_publishes=self._publishers.open_publishes,
        )
        self.account = Account(seed=plan.seed, kills=self._killer.kills, answers=self._publishers.answers)
        self._arrived: set[str] = set()
        self._has_enough = False

    async def run(self) -> Account:
        """Publish and kill until the plan is fulfilled, let everything drain, and read the ledgers."""
        started_s = time.monotonic()
        try:
            async with self._receiver:
                await self._make_group_and_queues()
                await self._load_and_kill()
                drain_s = time.monotonic()
                await eventually(self._is_complete, timeout=DRAINED_WITHIN_S, what="everything arrived and was settled")
                self.account.drain_s = time.monotonic() - drain_s
                self.account.dead_letters = await self._dead_letters()
        finally:
            self._acknowledged.close()
            self._read_ledgers()
            with contextlib.suppress(RedisError, OSError):
                self.account.remains = await self._inspector.remains()
            await self._inspector.aclose()
            self.account.duration_s = time.monotonic() - started_s
        return self.account

    async def _make_group_and_queues(self) -> None:
        endpoints = [{"url": url} for url in self._orders.endpoints()]
        await self._make(f"/v2/topics/{GROUP}/endpoints", {"endpoints": endpoints})
        for name in QUEUES:
            await self._make("/v2/queues", {"queueName": name, "parallelism": PARALLELISM})

    async def _make(self, path: str, fields: dict[str, object]) -> None:
        answer = await self._client.call("POST", path, body=msgspec.json.encode(fields))
        assert answer.status == 200, answer

    async def _load_and_kill(self) -> None:
        authorization = {"Authorization": f"Bearer {self._system.settings.token}"}
        async with aiohttp.ClientSession(headers=authorization) as session, asyncio.TaskGroup() as group:
            for number in range(PUBLISHERS):
                group.create_task(self._publish(session, number))
            group.create_task(self._count_arrivals())
            await self._killer.kill_all(self._plan.kills)
            await eventually(lambda: len(self.account.answers.acknowledged) >= self._plan.messages, timeout=300)
            self._has_enough = True

    async def _publish(self, session: aiohttp.ClientSession, number: int) -> None:
        while not self._has_enough:
            outstanding = len(self.account.answers.acknowledged) - len(self._arrived)
            if outstanding > MAX_OUTSTANDING and not self._killer.needs_publishes:
                await asyncio.sleep(0.01)
            else:
                await self._publishers.publish(session, number)

    async def _count_arrivals(self) -> None:
        while not self._has_enough:
            self._read_arrivals()
            await asyncio.sleep(0.02)

    def _read_arrivals(self) -> None:
        self._arrived |= {exchange.message_id for exchange in self._receiver.recording.read()}

    async def _is_complete(self) -> bool:
        self._read_arrivals()
        return self.account.answers.acknowledged.keys() <= self._arrived and await self._inspector.is_empty()

    async def _dead_letters(self) -> set[str]:
        letters = await self._client.dead_letters()
        return {letter["messageId"] for letter in letters}

    def _read_ledgers(self) -> None:
        account = self.account
        self._receiver.recording.update()
        account.exchanges = self._receiver.recording.exchanges
        facts = LedgerReader(self._folder / "acknowledged").new_facts()
        account.answers.acknowledged = {message_id: Kind(kind) for _, _, message_id, kind in facts}
        events = [event for worker in self._system.workers for event in worker.events("lease.lost")]
        account.lost_leases = {event["message_id"] for event in events} | account.kills.stood_still

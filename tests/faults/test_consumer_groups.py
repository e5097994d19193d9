"""A consumer group at work while apis and Redis are killed: every record that was acknowledged is handled.

FAULT_GROUP_KILLS kills. The consumers do as docs/explanation/consumer-groups.md says: they handle, then commit, and
where an answer was lost they close their instance and begin at the commit.
"""

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from qstash_clone.settings import Settings
from tests.e2e.conftest import settings_for
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.raw_http import Answer
from tests.support.redis_server import RedisServer

KILLS = int(os.environ.get("FAULT_GROUP_KILLS", "8"))
SEED = int(os.environ.get("FAULT_SEED", "1"))
CONSUMERS = 4
PARTITIONS = 6
BETWEEN_KILLS = 150
"""Records handled before something is killed."""
SETTINGS = [("Kafka-Enable-Auto-Commit", "false"), ("Kafka-Auto-Offset-Reset", "earliest")]


@dataclass(slots=True, kw_only=True)
class Account:
    """What producers were told and consumers got."""

    acknowledged: set[str] = field(default_factory=set[str])
    handled: Counter[str] = field(default_factory=Counter[str])
    lives: int = 0
    is_enough: bool = False
    is_over: bool = False


class Member:
    """One consumer with a new instance for each life."""

    def __init__(self, number: int, clients: list[Client], account: Account) -> None:
        self._number = number
        self._clients = clients
        self._account = account
        self._rng = random.Random(SEED + number)

    async def run(self) -> None:
        while not self._account.is_over:
            self._account.lives += 1
            instance = f"c{self._number}-{self._account.lives}"
            await self._live(instance)
            await eventually(lambda instance=instance: self._close(instance), timeout=60, what="instance closed")

    async def _close(self, instance: str) -> bool:
        answer = await self._call("DELETE", f"/delete-consumer/g/{instance}")
        return answer is not None and answer.status in (200, 404)

    async def _live(self, instance: str) -> None:
        """Until an answer is lost, or now and then by choice."""
        while not self._account.is_over and self._rng.random() > 0.01:
            answer = await self._call("GET", f"/consume/g/{instance}/orders?timeout=100")
            if answer is None or answer.status == 503:
                return
            assert answer.status == 200, answer
            records: list[dict[str, Any]] = answer.json()
            self._account.handled.update(record["value"] for record in records)
            if not records:
                continue
            answer = await self._call("POST", f"/commit/g/{instance}")
            if answer is None or answer.status == 503:
                return
            assert answer.status == 200, answer

    async def _call(self, method: str, target: str) -> Answer | None:
        """None if there was no answer."""
        try:
            return await self._rng.choice(self._clients).call(method, target, SETTINGS)
        except (OSError, EOFError, ValueError):
            await asyncio.sleep(0.02)
            return None


async def produce(client: Client, producer: int, account: Account) -> None:
    number = 0
    while not account.is_enough:
        values = [f"{producer}-{number + place}" for place in range(10)]
        number += len(values)
        body = msgspec.json.encode([{"value": value, "key": value} for value in values])
        try:
            answer = await client.call("POST", "/produce/orders", body=body)
        except (OSError, EOFError, ValueError):
            await asyncio.sleep(0.02)
            continue
        if answer.status == 200:
            account.acknowledged.update(values)
        await asyncio.sleep(0.02)


async def kill_on(system: System, redis: RedisServer, account: Account) -> Counter[str]:
    """Apis and Redis in turn, each after some more was handled."""
    rng = random.Random(SEED)
    kinds = [("api", "redis")[number % 2] for number in range(KILLS)]
    rng.shuffle(kinds)
    for kind in kinds:
        wanted = len(account.handled) + BETWEEN_KILLS
        await eventually(lambda wanted=wanted: len(account.handled) >= wanted, timeout=60, what="records handled")
        if kind == "redis":
            await asyncio.to_thread(redis.kill)
            await asyncio.to_thread(redis.start)
        else:
            api = rng.choice(system.apis)
            await asyncio.to_thread(api.kill)
            api.start()
            await asyncio.to_thread(api.wait_ready)
    return Counter(kinds)


async def test_acknowledged_records_are_handled(own_redis: RedisServer, accounts: list[str]) -> None:
    settings: Settings = settings_for(own_redis.url, default_partitions=PARTITIONS)
    account = Account()
    with System(settings, apis=2, workers=1) as system:
        clients = [Client(api.url, settings) for api in system.apis]
        await clients[0].send("POST", "/topics/orders")
        async with asyncio.TaskGroup() as group:
            for number in range(2):
                group.create_task(produce(clients[number], number, account))
            for number in range(CONSUMERS):
                group.create_task(Member(number, clients, account).run())
            kills = await kill_on(system, own_redis, account)
            account.is_enough = True
            await eventually(lambda: account.acknowledged <= account.handled.keys(), timeout=60, what="all handled")
            account.is_over = True
    twice = sum(count > 1 for count in account.handled.values())
    accounts.append(
        f"{len(account.acknowledged)} records acknowledged, {len(account.handled)} handled, {twice} more than once, "
        f"{account.lives} instances\nkills (kill -9) {dict(kills)}"
    )

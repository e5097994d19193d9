"""Producing to topics while apis and Redis are killed: what was acknowledged is where the answer said, once.

FAULT_TOPIC_KILLS kills. Producers do not repeat what was not acknowledged, so what is there twice was appended twice by
the service itself.
"""

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store, open_store
from qstash_clone.topics.interface import ReadFrom
from qstash_clone.topics.records import StoredRecord, Topic
from tests.e2e.conftest import settings_for
from tests.faults.topic_runs import kill_in_turn
from tests.support.client import Client
from tests.support.processes import System
from tests.support.redis_server import RedisServer

KILLS = int(os.environ.get("FAULT_TOPIC_KILLS", "8"))
SEED = int(os.environ.get("FAULT_SEED", "1"))
PRODUCERS = 24
BETWEEN_KILLS = 400
"""Records acknowledged before something is killed."""


@dataclass(slots=True, kw_only=True)
class Account:
    """What producers were told."""

    sent: set[str] = field(default_factory=set[str])
    acknowledged: dict[tuple[int, int], str] = field(default_factory=dict[tuple[int, int], str])
    """Partition and offset -> value."""
    unanswered: int = 0


async def produce(client: Client, producer: int, account: Account, is_enough: asyncio.Event) -> None:
    """Batches, one after the other, each record once."""
    number = 0
    while not is_enough.is_set():
        values = [f"{producer}-{number + place}" for place in range(1 + number % 3)]
        number += len(values)
        account.sent.update(values)
        body = msgspec.json.encode([{"value": value, "key": f"k{producer}"} for value in values])
        try:
            answer = await client.call("POST", "/produce/orders", body=body)
        except (OSError, EOFError, ValueError):
            account.unanswered += 1
            await asyncio.sleep(0.02)
            continue
        if answer.status != 200:
            assert answer.status == 503, answer
            account.unanswered += 1
            await asyncio.sleep(0.02)
            continue
        for value, place in zip(values, answer.json(), strict=True):
            spot = place["partition"], place["offset"]
            assert spot not in account.acknowledged, "two records were promised one place"
            account.acknowledged[spot] = value


async def read_all(store: Store, topic: Topic) -> dict[tuple[int, int], StoredRecord]:
    found: dict[tuple[int, int], StoredRecord] = {}
    for partition in range(topic.config.partitions):
        offset = 0
        while True:
            [part] = await store.topics.read([ReadFrom(topic, partition, offset)], max_records=1000, max_bytes=1 << 22)
            assert part is not None
            assert part.bounds.start == 0
            found |= {(partition, record.offset): record for record in part.records}
            offset += len(part.records)
            if not part.records:
                assert offset == part.bounds.end, "offsets are dense"
                break
    return found


async def test_acknowledged_records_are_where_they_were_promised(own_redis: RedisServer, accounts: list[str]) -> None:
    settings: Settings = settings_for(own_redis.url)
    account, is_enough = Account(), asyncio.Event()
    with System(settings, apis=2, workers=1) as system:
        clients = [Client(api.url, settings) for api in system.apis]
        async with asyncio.TaskGroup() as group:
            for producer in range(PRODUCERS):
                group.create_task(produce(clients[producer % 2], producer, account, is_enough))
            rng = random.Random(SEED)
            kills = await kill_in_turn(system, own_redis, rng, KILLS, lambda: len(account.acknowledged), BETWEEN_KILLS)
            is_enough.set()
    store = await open_store(settings)
    topic = await store.topics.get_topic("orders")
    assert topic is not None
    found = await read_all(store, topic)
    await store.aclose()
    accounts.append(
        f"{len(account.acknowledged)} records acknowledged, {account.unanswered} requests without an answer, "
        f"{len(found)} records found\nkills (kill -9) {dict(kills)}"
    )
    lost = {spot: value for spot, value in account.acknowledged.items() if spot not in found}
    assert not lost
    values = {spot: (record.value or b"").decode() for spot, record in found.items()}
    assert account.acknowledged.items() <= values.items()
    assert max(Counter(values.values()).values()) == 1, "nothing was appended twice"
    assert set(values.values()) <= account.sent
    for producer in range(PRODUCERS):
        own = [value for _, value in sorted(values.items()) if value.startswith(f"{producer}-")]
        assert own == sorted(own, key=lambda value: int(value.split("-")[1])), "in the order of the producer"

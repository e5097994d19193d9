"""Many schedules of one minute, four workers, and kills while they fire: every instant once, whatever happens.

FAULT_MINUTES makes it longer, FAULT_SEED another one.
"""

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import AsyncGenerator, Set
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from qstash_clone.domain.lifecycle import LogEvent
from qstash_clone.domain.schedules import StoredSchedule
from qstash_clone.domain.virtual_clock import Freeze, MoveTo
from qstash_clone.errors import StorageUnavailable
from qstash_clone.ids import format_message_id
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store, open_store
from tests.e2e.conftest import settings_for
from tests.faults.inspection import Inspector
from tests.faults.killing import Killer
from tests.faults.recording import ReceiverProcess
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.raw_http import Headers
from tests.support.redis_server import RedisServer

SCHEDULES = 500
GROUP = "group"
TO_GROUP = 20
"""Of them, to a URL group."""
TO_QUEUE = 20
"""Of them, into a queue."""
ENDPOINTS = 3
MINUTES = int(os.environ.get("FAULT_MINUTES", "6"))
SEED = int(os.environ.get("FAULT_SEED", "1"))
MINUTE_MS = 60_000
KILLED_AFTER_S = (0.0, 0.3)


async def test_every_instant_of_every_schedule_fires_once(
    own_redis: RedisServer, tmp_path: Path, accounts: list[str]
) -> None:
    settings = settings_for(own_redis.url, lease_ms=2000)
    rng = random.Random(SEED)
    with System(settings, workers=4) as system:
        async with ReceiverProcess(tmp_path) as receiver, Inspector(settings) as inspector, _opened(settings) as store:
            killer = Killer(system, own_redis, inspector, rng, min_in_flight=0, open_publishes=lambda _: 0)
            # It stands still just before a minute, however long it takes to create them.
            await store.virtual_clock.move_clock(Freeze(True))
            minute_ms = ((await store.virtual_clock.read_clock()).now_ms // MINUTE_MS + 1) * MINUTE_MS
            await store.virtual_clock.move_clock(MoveTo(minute_ms - 1))
            await _create(Client(system.url, settings), receiver)
            schedules = await _list(store)
            instants = [minute_ms + number * MINUTE_MS for number in range(MINUTES)]
            for instant_ms in instants:
                await store.virtual_clock.move_clock(MoveTo(instant_ms))
                await asyncio.sleep(rng.uniform(*KILLED_AFTER_S))
                await (killer.kill_redis() if rng.random() < 0.4 else killer.kill_worker())
                await eventually(
                    lambda instant_ms=instant_ms: _have_fired(store, instant_ms), timeout=60, what="all have fired"
                )
            expected = {
                format_message_id(message_id): (one.schedule.id, instant_ms)
                for one in schedules
                for instant_ms in instants
                for message_id in store.schedules.new_firing_ids(one, instant_ms, _urls_of(one, receiver))
            }
            await eventually(lambda: _are_there(receiver, expected.keys()), timeout=60, what="everything arrived")
            await eventually(inspector.is_empty, timeout=30, what="nothing is left")
            created = Counter(message_id for _, message_id in await inspector.entries(LogEvent.CREATED))
        lost_leases = {event["message_id"] for worker in system.workers for event in worker.events("lease.lost")}

    exchanges = receiver.recording.exchanges
    arrivals = Counter(exchange.message_id for exchange in exchanges)
    twice = {message_id for message_id, count in arrivals.items() if count > 1}
    accounts.append(
        f"{SCHEDULES} schedules, {MINUTES} instants, {len(expected)} messages\n"
        f"kills (kill -9) {killer.kills}\n"
        f"created twice {len(created) - len(expected)}, delivered twice after a kill {len(twice)}"
    )
    assert len(expected) == MINUTES * (SCHEDULES + TO_GROUP * (ENDPOINTS - 1))
    assert created == Counter(expected.keys()), "each message of each instant was created once, and nothing else"
    assert arrivals.keys() == expected.keys()
    assert twice <= killer.kills.in_flight | killer.kills.stood_still | lost_leases
    assert {(one.message_id, one.schedule_id) for one in exchanges} == {
        (message_id, schedule_id) for message_id, (schedule_id, _) in expected.items()
    }


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[Store]:
    store = await open_store(settings)
    try:
        yield store
    finally:
        await store.aclose()


async def _create(client: Client, receiver: ReceiverProcess) -> None:
    endpoints = [{"url": url} for url in _endpoints(receiver)]
    await _post(client, f"/v2/topics/{GROUP}/endpoints", body=msgspec.json.encode({"endpoints": endpoints}))
    await _post(client, "/v2/queues", body=msgspec.json.encode({"queueName": "queue", "parallelism": 5}))
    for number in range(SCHEDULES):
        headers = [("Upstash-Cron", "* * * * *"), ("Upstash-Schedule-Id", f"schedule-{number}")]
        if TO_GROUP <= number < TO_GROUP + TO_QUEUE:
            headers.append(("Upstash-Queue-Name", "queue"))
        destination = GROUP if number < TO_GROUP else receiver.url("url")
        await _post(client, f"/v2/schedules/{destination}", headers)


async def _post(client: Client, target: str, headers: Headers = (), body: bytes = b"") -> None:
    answer = await client.call("POST", target, headers, body)
    assert answer.status == 200, answer


async def _list(store: Store) -> list[StoredSchedule]:
    return [one async for schedules in store.schedules.list_schedules() for one in schedules]


def _endpoints(receiver: ReceiverProcess) -> list[str]:
    return [receiver.url(f"endpoint/{number}") for number in range(ENDPOINTS)]


def _urls_of(stored: StoredSchedule, receiver: ReceiverProcess) -> list[str]:
    """Where a firing publishes to."""
    return _endpoints(receiver) if stored.schedule.url_group else [stored.schedule.message.url]


async def _have_fired(store: Store, instant_ms: int) -> bool:
    with contextlib.suppress(StorageUnavailable):
        return all(one.last_fire_ms == instant_ms for one in await _list(store))
    return False


def _are_there(receiver: ReceiverProcess, expected: Set[str]) -> bool:
    receiver.recording.update()
    return {exchange.message_id for exchange in receiver.recording.exchanges} >= expected

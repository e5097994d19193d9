"""Redis did what it was told, and the reply was lost on the way: repeated calls change nothing twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.conftest import settings_for
from tests.faults.inspection import Inspector
from tests.faults.proxy import LossyProxy
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import Receiver, Reply
from tests.support.redis_server import RedisServer


@pytest.fixture
async def proxy(own_redis: RedisServer) -> AsyncIterator[LossyProxy]:
    async with LossyProxy(own_redis.socket, Path(f"{own_redis.socket}.lossy")) as proxy:
        yield proxy


@pytest.fixture
async def system(proxy: LossyProxy) -> AsyncIterator[System]:
    """All its processes reach Redis through the proxy, which runs in this process."""
    system = System(settings_for(proxy.url, lease_ms=2000), workers=2)
    try:
        await asyncio.to_thread(system.start)
        yield system
    finally:
        system.end()


@pytest.mark.parametrize(
    ("script", "count"), [("publish", 2), ("claim", 8), ("settle", 8), ("promote", 8), ("heartbeat", 4)]
)
async def test_a_lost_reply_neither_loses_nor_repeats_a_message(
    script: str, count: int, system: System, proxy: LossyProxy, receiver: Receiver
) -> None:
    client = Client(system.url, system.settings)
    receiver.always(Reply(status=200, body=b"fine"))
    proxy.lose_replies(script, count)
    ids: list[str] = []
    for number in range(40):
        headers = [("Upstash-Delay", "1s")] if number % 4 == 0 else []
        ids.append(await client.publish(receiver.url, b"%d" % number, headers))
    await receiver.wait_for(40, timeout_s=30)
    await eventually(lambda: proxy.lost.get(script) == count, timeout=30)
    await eventually(lambda: all(system.attempts(message_id) for message_id in ids), timeout=20)
    assert sorted(int(request.body) for request in receiver.requests) == list(range(40))
    assert Counter(request.header("Upstash-Message-Id") for request in receiver.requests) == Counter(ids)
    assert await client.dead_letters() == []
    await _drained(system)


async def test_lost_replies_to_renewals_cost_no_lease(system: System, proxy: LossyProxy, receiver: Receiver) -> None:
    client = Client(system.url, system.settings)
    gate = asyncio.Event()
    receiver.respond(200, after=gate, times=None)
    ids = [await client.publish(receiver.url, b"x") for _ in range(20)]
    await receiver.wait_for(20)
    proxy.lose_replies("extend", 8)
    await eventually(lambda: proxy.lost.get("extend") == 8, timeout=30)
    gate.set()
    await eventually(lambda: all(system.attempts(message_id) for message_id in ids))
    assert Counter(request.header("Upstash-Message-Id") for request in receiver.requests) == Counter(ids)
    assert sum(worker.metric("leases_lost_total") for worker in system.workers) == 0
    await _drained(system)


async def test_lost_replies_to_the_settlement_of_failures(
    system: System, proxy: LossyProxy, receiver: Receiver
) -> None:
    client = Client(system.url, system.settings)
    receiver.always(Reply(status=500))
    proxy.lose_replies("settle", 10)
    ids = [
        await client.publish(receiver.url, b"x", [("Upstash-Retries", "2"), ("Upstash-Retry-Delay", "0")])
        for _ in range(20)
    ]
    await eventually(lambda: _dead_letters(client, 20), timeout=30)
    letters = await client.dead_letters()
    assert sorted(letter["messageId"] for letter in letters) == sorted(ids)
    arrivals = Counter(
        (request.header("Upstash-Message-Id"), request.header("Upstash-Retried")) for request in receiver.requests
    )
    assert arrivals == Counter((message_id, str(retried)) for message_id in ids for retried in range(3))
    await _drained(system)


async def test_a_lost_reply_to_a_rotation_rotates_once(system: System, proxy: LossyProxy) -> None:
    client = Client(system.url, system.settings)
    before = (await client.call("GET", "/v2/keys")).json()
    proxy.lose_replies("rotate_keys", 1)
    after = (await client.call("POST", "/v2/keys/rotate")).json()
    assert after["current"] == before["next"]
    assert (await client.call("GET", "/v2/keys")).json() == after


async def test_lost_replies_to_cancel_and_dead_letter_calls(
    system: System, proxy: LossyProxy, receiver: Receiver
) -> None:
    client = Client(system.url, system.settings)
    waiting = await client.publish(receiver.url, b"x", [("Upstash-Delay", "1h")])
    proxy.lose_replies("cancel", 1)
    assert (await client.cancel(waiting)).json() == {"cancelled": 1}
    receiver.respond(500, times=2)
    for _ in range(2):
        await client.publish(receiver.url, b"x", [("Upstash-Retries", "0")])
    await eventually(lambda: _dead_letters(client, 2))
    first, second = await client.dead_letters()
    proxy.lose_replies("delete_dead_letter", 1)
    assert (await client.call("DELETE", f"/v2/dlq/{first['dlqId']}")).status == 200
    proxy.lose_replies("retry_dead_letter", 1)
    assert (await client.call("POST", f"/v2/dlq/retry/{second['dlqId']}")).status == 201
    await receiver.wait_for(3)
    await _drained(system)
    assert len(receiver.requests) == 3
    assert proxy.lost == {"cancel": 1, "delete_dead_letter": 1, "retry_dead_letter": 1}


async def _dead_letters(client: Client, count: int) -> bool:
    return len(await client.dead_letters()) >= count


async def _drained(system: System) -> None:
    async with Inspector(system.settings) as inspector:
        await eventually(inspector.is_empty, timeout=15)

"""Everything killed in the same instant, Redis too, as when the power goes."""

import asyncio
import os
import signal
from collections import Counter

import aiohttp

from tests.e2e.conftest import settings_for
from tests.faults.inspection import Inspector
from tests.support.client import Client, check_signature
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import Receiver
from tests.support.redis_server import RedisServer


async def test_whatever_was_acknowledged_arrives_after_a_power_cut(own_redis: RedisServer, receiver: Receiver) -> None:
    settings = settings_for(own_redis.url, lease_ms=2000, worker_concurrency=32)
    with System(settings, apis=2, workers=2) as system:
        async with Inspector(settings) as inspector:
            await _cut_the_power(system, own_redis, inspector, receiver)


async def _cut_the_power(system: System, own_redis: RedisServer, inspector: Inspector, receiver: Receiver) -> None:
    settings = system.settings
    client = Client(system.url, settings)
    gate = asyncio.Event()
    receiver.respond(500, path="/retried", times=10)
    receiver.respond(200, after=gate, path="/held", times=None)
    waiting: list[str] = []
    for _ in range(10):
        waiting.append(await client.publish(f"{receiver.url}/delayed", b"x", [("Upstash-Delay", "3s")]))
        waiting.append(await client.publish(f"{receiver.url}/retried", b"x", [("Upstash-Retry-Delay", "3000")]))
    await receiver.wait_for(10, path="/retried")
    held = [await client.publish(f"{receiver.url}/held", b"x") for _ in range(40)]

    acknowledged: list[str] = []
    publishing = [
        asyncio.create_task(_publish(api.url, receiver.url, settings.token, acknowledged))
        for api in system.apis
        for _ in range(8)
    ]
    await eventually(lambda: len(acknowledged) > 100)
    assert await inspector.count_in_flight() >= 10
    assert own_redis.process is not None
    for pid in (own_redis.process.pid, *(process.pid for process in system.processes)):
        os.kill(pid, signal.SIGKILL)
    await asyncio.gather(*publishing)
    for process in system.processes:
        await asyncio.to_thread(process.wait)
    await asyncio.to_thread(own_redis.process.wait)
    await inspector.aclose()
    gate.set()

    await asyncio.to_thread(own_redis.start)
    unsettled = await inspector.in_flight()
    assert len(unsettled) >= 10
    await asyncio.to_thread(system.start)
    everything = {*waiting, *held, *acknowledged}
    await eventually(lambda: everything <= _arrived(receiver).keys(), timeout=30)
    await eventually(inspector.is_empty, timeout=20)
    twice = {message_id for message_id, count in _arrived(receiver, "0").items() if count > 1}
    assert twice <= unsettled, "only what was in flight is repeated"
    assert await client.dead_letters() == []
    last = receiver.requests[-1]
    check_signature(last, receiver.url + last.target, settings.current_signing_key, settings.next_signing_key)


def _arrived(receiver: Receiver, retried: str | None = None) -> Counter[str | None]:
    """How often each message arrived, in all or as its first attempt."""
    return Counter(
        request.header("Upstash-Message-Id")
        for request in receiver.requests
        if retried in (None, request.header("Upstash-Retried"))
    )


async def _publish(api_url: str, receiver_url: str, token: str, acknowledged: list[str]) -> None:
    """Publish until the service is gone, noting what it promised."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        while True:
            try:
                async with session.post(f"{api_url}/v2/publish/{receiver_url}/late", data=b"x") as answer:
                    if answer.status != 200:
                        return
                    acknowledged.append((await answer.json())["messageId"])
            except aiohttp.ClientError:
                return

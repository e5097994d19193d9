"""Processes that stand still for longer than a lease and then go on as if nothing had happened."""

import asyncio
import signal
import time
from collections import Counter

from tests.e2e.conftest import settings_for
from tests.faults.inspection import Inspector
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import Receiver, Reply
from tests.support.redis_server import RedisServer

LEASE_MS = 1000


async def test_a_worker_that_overslept_its_lease_changes_nothing(own_redis: RedisServer, receiver: Receiver) -> None:
    with System(settings_for(own_redis.url, lease_ms=LEASE_MS), workers=1) as system:
        client = Client(system.url, system.settings)
        sleeper = system.workers[0]
        gate = asyncio.Event()
        # The sleeper's answer would dead-letter the message.
        receiver.respond(500, after=gate, times=5)
        receiver.always(Reply(status=200))
        ids = [await client.publish(receiver.url, b"x", [("Upstash-Retries", "0")]) for _ in range(5)]
        await receiver.wait_for(5)
        await asyncio.to_thread(sleeper.pause)
        gate.set()
        other = system.add_worker()
        await asyncio.to_thread(system.workers[1].start)
        await receiver.wait_for(10, timeout_s=20)
        for message_id in ids:
            (event,) = await eventually(
                lambda message_id=message_id: other.events("attempt.settled", message_id=message_id)
            )
            assert (event["decision"], event["claims"]) == ("delivered", 2)
        sleeper.resume()
        await eventually(lambda: sleeper.metric("leases_lost_total") == 5)
        assert {event["message_id"] for event in await eventually(lambda: sleeper.events("lease.lost"))} == set(ids)
        assert other.metric("redeliveries_total") == 5
        assert await client.dead_letters() == []
        arrivals = Counter(
            (request.header("Upstash-Message-Id"), request.header("Upstash-Retried")) for request in receiver.requests
        )
        assert arrivals == Counter({(message_id, "0"): 2 for message_id in ids})
        # It works on.
        await client.publish(f"{receiver.url}/after", b"x")
        await receiver.wait_for(1, path="/after")
        await _drained(system)


async def test_a_redis_that_stood_still_costs_no_lease(own_redis: RedisServer, receiver: Receiver) -> None:
    with System(settings_for(own_redis.url, lease_ms=LEASE_MS), workers=3) as system:
        ids, gate = await _hold_messages(system, receiver)
        assert own_redis.process is not None
        for _ in range(2):
            own_redis.process.send_signal(signal.SIGSTOP)
            await _two_leases()
            own_redis.process.send_signal(signal.SIGCONT)
            await _two_leases()
        await _expect_no_redelivery(system, receiver, ids, gate)


async def test_an_outage_longer_than_a_lease_costs_no_lease(own_redis: RedisServer, receiver: Receiver) -> None:
    with System(settings_for(own_redis.url, lease_ms=LEASE_MS), workers=3) as system:
        ids, gate = await _hold_messages(system, receiver)
        await asyncio.to_thread(own_redis.kill)
        await _two_leases()
        await asyncio.to_thread(own_redis.start)
        await _two_leases()
        await _expect_no_redelivery(system, receiver, ids, gate)


async def _two_leases() -> None:
    """Twice as long as it takes for leases to run out and for workers to look for those that did."""
    began_s = time.monotonic()
    await eventually(lambda: time.monotonic() - began_s > 2 * LEASE_MS / 1000)


async def _hold_messages(system: System, receiver: Receiver) -> tuple[list[str], asyncio.Event]:
    """Messages in flight in all workers, and what lets them end."""
    client = Client(system.url, system.settings)
    gate = asyncio.Event()
    receiver.respond(200, after=gate, times=None)
    ids = [await client.publish(receiver.url, b"x") for _ in range(60)]
    await receiver.wait_for(60)
    await _two_leases()
    return ids, gate


async def _expect_no_redelivery(system: System, receiver: Receiver, ids: list[str], gate: asyncio.Event) -> None:
    gate.set()
    await eventually(lambda: all(system.attempts(message_id) for message_id in ids), timeout=20)
    assert Counter(request.header("Upstash-Message-Id") for request in receiver.requests) == Counter(ids)
    assert sum(worker.metric("leases_lost_total") for worker in system.workers) == 0
    assert sum(worker.metric("redeliveries_total") for worker in system.workers) == 0
    await _drained(system)


async def _drained(system: System) -> None:
    async with Inspector(system.settings) as inspector:
        await eventually(inspector.is_empty, timeout=15)

"""A message that kills every worker that takes it ends as a dead letter, and the others do not mind."""

import asyncio
import json
import os
import signal
from collections import Counter
from typing import Any

from tests.e2e.conftest import settings_for
from tests.faults.inspection import Inspector
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import HANG, Receiver
from tests.support.redis_server import RedisServer


async def test_a_message_that_kills_its_workers_is_quarantined(own_redis: RedisServer, receiver: Receiver) -> None:
    settings = settings_for(own_redis.url, lease_ms=1000, max_claims=3)
    with System(settings, workers=2) as system:
        client = Client(system.url, system.settings)
        receiver.script(HANG, path="/poison", times=None)
        reported = ("Upstash-Failure-Callback", f"{receiver.url}/failed")
        poison = await client.publish(f"{receiver.url}/poison", b"x", [reported])
        others: list[str] = []
        for death in range(1, 4):
            await receiver.wait_for(death, path="/poison", timeout_s=20)
            async with Inspector(settings) as inspector:
                pid = await inspector.pid_of(poison)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            (victim,) = [worker for worker in system.workers if worker.pid == pid]
            await asyncio.to_thread(victim.wait)
            others += [await client.publish(f"{receiver.url}/other", b"x") for _ in range(20)]
            victim.start()
        letter = await eventually(lambda: client.dead_letter_of(poison), timeout=20)
        assert letter is not None
        assert letter["responseStatus"] == 0
        await receiver.wait_for(1, path="/failed", timeout_s=20)
        [report] = [request for request in receiver.requests if request.target == "/failed"]
        assert json.loads(report.body)["dlqId"] == letter["dlqId"]
        assert len([request for request in receiver.requests if request.target == "/poison"]) == 3
        assert {request.header("Upstash-Retried") for request in receiver.requests} == {"0"}, "no attempt has ended"
        events = await eventually(lambda: _quarantined(system))
        assert [event["message_id"] for event in events] == [poison]
        await receiver.wait_for(60, path="/other", timeout_s=20)
        await eventually(lambda: all(system.attempts(message_id) for message_id in others))
        arrived = Counter(
            request.header("Upstash-Message-Id") for request in receiver.requests if request.target == "/other"
        )
        assert arrived == Counter(others)
        assert len(await client.dead_letters()) == 1


def _quarantined(system: System) -> list[dict[str, Any]]:
    return [event for worker in system.workers for event in worker.events("message.quarantined")]

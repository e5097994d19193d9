"""Queues with parallelism 1 while everything is killed again and again: strictly one member after the other.

FAULT_MEMBERS, FAULT_QUEUE_KILLS and FAULT_SEED make it longer or another one.
"""

import asyncio
import os
import random
import time
from pathlib import Path

from tests.e2e.conftest import settings_for
from tests.faults.fifo import FifoPublishers, FifoQueue, members_of, overlapping, overtaking
from tests.faults.inspection import Inspector
from tests.faults.killing import Killer
from tests.faults.recording import ReceiverProcess
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.redis_server import RedisServer

QUEUES = 8
MEMBERS = int(os.environ.get("FAULT_MEMBERS", "35"))
"""Of each queue, at least; there are more until everything was killed."""
KILLS = int(os.environ.get("FAULT_QUEUE_KILLS", "9"))
SEED = int(os.environ.get("FAULT_SEED", "1"))


async def test_members_are_delivered_one_after_the_other(
    own_redis: RedisServer, tmp_path: Path, accounts: list[str]
) -> None:
    settings = settings_for(own_redis.url, lease_ms=1000)
    with System(settings, apis=2, workers=3) as system:
        async with Inspector(settings) as inspector, ReceiverProcess(tmp_path) as receiver:
            queues = [FifoQueue(number, receiver) for number in range(QUEUES)]
            publishers = FifoPublishers(system, queues)
            killer = Killer(
                system,
                own_redis,
                inspector,
                random.Random(SEED),
                min_in_flight=1,
                open_publishes=publishers.open_publishes,
            )
            started_s = time.monotonic()
            async with asyncio.TaskGroup() as group:
                counting = group.create_task(_count_arrivals(receiver, queues))
                killing = group.create_task(killer.kill_all(KILLS))
                await publishers.publish_all(MEMBERS, are_enough=killing.done, is_urgent=lambda: killer.needs_publishes)
                await eventually(lambda: not any(queue.waiting for queue in queues), timeout=60, what="all arrived")
                counting.cancel()
            await eventually(inspector.is_empty, timeout=30, what="nothing waits and no slot is taken")
            duration_s = time.monotonic() - started_s
            client = Client(system.url, settings)
            lags = [(await client.call("GET", f"/v2/queues/{queue.name}")).json()["lag"] for queue in queues]
            dead = {letter["messageId"] for letter in await client.dead_letters()}
        lost_leases = {event["message_id"] for worker in system.workers for event in worker.events("lease.lost")}

    # A killed worker is no excuse: the slot is kept for whoever takes the member over.
    excused = killer.kills.stood_still | lost_leases
    arrived = {queue.name: members_of(queue, receiver.recording.exchanges) for queue in queues}
    everybody = [member for members in arrived.values() for member in members]
    overlaps = [pair for members in arrived.values() for pair in overlapping(members)]
    accounts.append(
        f"{QUEUES} queues, {len(everybody)} members, {sum(len(one.attempts) for one in everybody)} attempts, "
        f"{sum(len(one.callbacks) for one in everybody)} callbacks\n"
        f"kills (kill -9) {killer.kills}\n"
        f"overlaps after a lost lease {len(overlaps)}, duration {duration_s:.0f} s"
    )
    for queue in queues:
        members = arrived[queue.name]
        assert list(overtaking(members)) == []
        stored_twice = {member.key for member in members if member.message_id not in queue.accepted}
        assert stored_twice <= queue.asked_again
        by_id = {member.message_id: member for member in members}
        assert queue.accepted.keys() <= by_id.keys()
        for message_id, recipe in queue.accepted.items():
            assert by_id[message_id].is_delivered is not recipe.is_doomed
            assert (message_id in dead) is recipe.is_doomed
            assert by_id[message_id].reports == recipe.callbacks
    assert [pair for pair in overlaps if not {one.message_id for one in pair} & excused] == []
    assert lags == [0] * QUEUES


async def _count_arrivals(receiver: ReceiverProcess, queues: list[FifoQueue]) -> None:
    by_path = {f"/{queue.name}": queue for queue in queues}
    while True:
        for exchange in receiver.recording.read():
            if exchange.path in by_path:
                by_path[exchange.path].arrived.add(exchange.message_id)
        await asyncio.sleep(0.01)

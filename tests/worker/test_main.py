"""The worker as a process: how it starts, drains and ends."""

import dataclasses
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis.asyncio

from qstash_clone.domain.message import Message, NewMessage, State
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.store import Store
from tests.support.eventually import eventually
from tests.support.processes import Worker
from tests.support.receiver import HANG, Receiver

StartWorker = Callable[..., Worker]


@pytest.fixture
def start_worker(settings: Settings, tmp_path: Path) -> Iterator[StartWorker]:
    workers: list[Worker] = []

    def start(**changes: object) -> Worker:
        changed = dataclasses.replace(settings, **changes)  # pyright: ignore[reportArgumentType]
        workers.append(Worker(settings=changed, log=tmp_path / f"worker-{len(workers)}.log"))
        return workers[-1].start()

    yield start
    for worker in workers:
        worker.end()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def publish(store: Store, url: str) -> MessageId:
    message_id = store.publishing.new_message_id()
    message = Message(url=url, caller_ip="127.0.0.1")
    await store.publishing.publish(
        NewMessage(id=message_id, message=message, body=b"body", lane="h:" + url.split("/")[2])
    )
    return message_id


async def test_it_delivers_and_ends_with_0_when_told_to(
    start_worker: StartWorker, store: Store, receiver: Receiver
) -> None:
    worker = start_worker().wait_ready()
    await publish(store, receiver.url)
    await receiver.wait_for(1)
    await eventually(lambda: worker.metric('attempts_total{outcome="delivered"}') == 1)
    assert worker.get("/livez")[0] == 200
    assert worker.stop(signal.SIGINT) == 0
    [event] = worker.events("attempt.settled")
    assert (event["status"], event["attempt"], event["decision"]) == (200, 1, "delivered")
    assert receiver.url not in worker.log_text()  # The host alone: paths and queries may be secret.
    assert [event["event"] for event in worker.events()][-2:] == ["worker.draining", "worker.stopped"]
    assert (await store.admin.stats()).workers == 0


async def test_it_waits_for_a_redis_that_is_away_and_can_be_stopped_meanwhile(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker(redis_url=f"unix://{tmp_path}/nobody")
    await eventually(lambda: worker.events("store.unavailable"))
    assert worker.get("/livez")[0] == 200
    status, body = worker.get("/readyz")
    assert status == 503
    assert b"does not answer" in body
    assert worker.stop() == 0


async def test_a_file_it_cannot_use_is_one_sentence_and_status_2(start_worker: StartWorker) -> None:
    check_refusal(start_worker(delivery_ca_file="/nowhere.pem"), "/nowhere.pem")


async def test_a_store_of_another_version_is_one_sentence_and_status_2(
    start_worker: StartWorker, store: Store, keys: PartitionKeys, redis_client: "redis.asyncio.Redis"
) -> None:
    await redis_client.hset(keys.meta.decode(), "v", "999")  # pyright: ignore
    check_refusal(start_worker(), "999")


def check_refusal(worker: Worker, word: str) -> None:
    assert worker.wait() == 2
    lines = [line for line in worker.log_text().splitlines() if line.startswith("qstash-clone")]
    assert len(lines) == 1
    assert word in lines[0]
    assert "Traceback" not in worker.log_text()


async def test_a_second_signal_ends_it_at_once(start_worker: StartWorker, store: Store, receiver: Receiver) -> None:
    receiver.always(HANG)
    worker = start_worker().wait_ready()
    message_id = await publish(store, receiver.url)
    await receiver.wait_for(1)
    worker.send_signal(signal.SIGTERM)
    await eventually(lambda: worker.events("worker.draining"))
    assert worker.stop() == 128 + signal.SIGTERM
    stored = await store.admin.get_message(message_id)
    assert stored is not None
    assert stored.state is State.ACTIVE


async def test_what_a_killed_worker_held_is_delivered_by_another_one(
    start_worker: StartWorker, store: Store, receiver: Receiver
) -> None:
    receiver.script(HANG)
    first = start_worker(lease_ms=1_000).wait_ready()
    message_id = await publish(store, receiver.url)
    await receiver.wait_for(1)
    first.kill()
    start_worker(lease_ms=1_000)
    await receiver.wait_for(2)
    assert [request.header("Upstash-Retried") for request in receiver.requests] == ["0", "0"]

    async def is_delivered() -> bool:
        stored = await store.admin.get_message(message_id)
        return stored is not None and stored.state is State.DELIVERED

    await eventually(is_delivered)

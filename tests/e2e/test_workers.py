"""Several workers side by side: shared load, fair lanes, and an orderly end."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import settings_for
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import HANG, Receiver
from tests.support.redis_server import RedisServer


@pytest.fixture
def draining(e2e_redis: RedisServer, request: pytest.FixtureRequest) -> Iterator[System]:
    """A system of its own, whose workers may be told to stop; its grace period is the test's parameter."""
    namespace = f"drain-{request.node.name.replace('[', '-').replace(']', '')}"[:32]
    settings = settings_for(e2e_redis.url, key_namespace=namespace, shutdown_grace_ms=getattr(request, "param", 25_000))
    with System(settings) as system:
        yield system


async def test_workers_share_the_load_and_deliver_each_message_once(
    client: Client, receiver: Receiver, system: System
) -> None:
    gate = asyncio.Event()
    receiver.respond(200, after=gate, times=None)
    ids = await asyncio.gather(*(client.publish(receiver.url, b"x") for _ in range(100)))
    # One worker has 16 places, and a host that is alone gets half of all: one of them could not hold these.
    await receiver.wait_for(16)
    gate.set()
    requests = await receiver.wait_for(100)
    await eventually(lambda: all(system.attempts(message_id) for message_id in ids), timeout=20)
    assert Counter(request.header("Upstash-Message-Id") for request in requests) == Counter(ids)
    shares = [sum(bool(worker.events("attempt.settled", message_id=each)) for each in ids) for worker in system.workers]
    assert sum(shares) == 100
    assert min(shares) > 0, shares


async def test_a_hanging_host_does_not_hold_up_another(client: Client, receiver: Receiver) -> None:
    async with Receiver() as hanging:
        hanging.always(HANG)
        stuck = [
            await client.publish(hanging.url, b"x", [("Upstash-Retries", "0")]) for _ in range(200)
        ]  # far more than all workers have places
        await hanging.wait_for(16)
        for number in range(10):
            await client.publish(receiver.url, b"x")
            await receiver.wait_for(number + 1, timeout_s=2)
        assert len(hanging.requests) < 32
        for message_id in stuck:
            await client.cancel(message_id)


async def test_a_backlog_for_one_host_does_not_hold_up_another(client: Client, receiver: Receiver) -> None:
    gate = asyncio.Event()
    async with Receiver() as slow:
        slow.respond(200, after=gate, times=None)
        await asyncio.gather(*(client.publish(slow.url, b"x") for _ in range(500)))
        await slow.wait_for(16)
        await asyncio.gather(*(client.publish(receiver.url, b"x") for _ in range(50)))
        await receiver.wait_for(50, timeout_s=5)
        assert len(slow.requests) < 32
        gate.set()
        await slow.wait_for(500, timeout_s=20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stopping_worker_finishes_what_it_has_begun(
    number: signal.Signals, draining: System, receiver: Receiver
) -> None:
    client = Client(draining.url, draining.settings)
    gate = asyncio.Event()
    receiver.respond(200, after=gate)
    under_way = await client.publish(f"{receiver.url}/1", b"x")
    await receiver.wait_for(1)
    (worker,) = draining.workers
    worker.send_signal(number)
    await eventually(lambda: worker.events("worker.draining"))
    assert not worker.is_ready()
    assert worker.get("/livez")[0] == 200
    later = [await client.publish(f"{receiver.url}/{number}", b"x") for number in range(2, 6)]
    gate.set()
    assert await asyncio.to_thread(worker.wait) == 0
    (attempt,) = draining.attempts(under_way)
    assert attempt["decision"] == "delivered"
    # What its last blocking read still took is delivered too; the rest waits for another worker.
    draining.start()
    await receiver.wait_for(5)
    assert sorted(request.target for request in receiver.requests) == ["/1", "/2", "/3", "/4", "/5"]
    await eventually(lambda: all(len(draining.attempts(message_id)) == 1 for message_id in later))


@pytest.mark.parametrize("draining", [500], indirect=True)
async def test_what_cannot_be_finished_in_time_is_handed_back_at_once(draining: System, receiver: Receiver) -> None:
    client = Client(draining.url, draining.settings)
    gate = asyncio.Event()
    receiver.respond(200, after=gate)
    message_id = await client.publish(receiver.url, b"x")
    await receiver.wait_for(1)
    second = draining.add_worker()
    draining.start()
    assert draining.workers[0].stop() == 0
    # The lease is 20 seconds: what comes sooner was handed back.
    first, again = await receiver.wait_for(2, timeout_s=10)
    assert first.values("Upstash-Message-Id") == again.values("Upstash-Message-Id") == [message_id]
    assert again.values("Upstash-Retried") == ["0"], "no attempt was used"
    await eventually(lambda: second.events("attempt.settled", message_id=message_id))
    assert await client.dead_letter_of(message_id) is None


async def test_a_stopping_api_answers_what_was_begun(draining: System, receiver: Receiver) -> None:
    (api,) = draining.apis
    reader, writer = await asyncio.open_connection("127.0.0.1", Client(draining.url, draining.settings).http.port)
    writer.write(
        f"POST /v2/publish/{receiver.url} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {draining.settings.token}\r\n"
        "Content-Length: 10\r\n\r\nhello".encode()
    )
    await eventually(lambda: api.is_ready())
    api.send_signal(signal.SIGTERM)
    await eventually(lambda: not api.is_ready())
    writer.write(b"world")
    status_line = await reader.readline()
    assert status_line.startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert await asyncio.to_thread(api.wait) == 0
    (request,) = await receiver.wait_for(1)
    assert request.body == b"helloworld"

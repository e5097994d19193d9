"""Redis away: a clear answer meanwhile, and everything goes on by itself when it is back."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import new_redis, settings_for
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import Receiver
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="module")
def mortal_redis() -> Iterator[RedisServer]:
    """A server that tests may kill."""
    server = new_redis()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def robust(mortal_redis: RedisServer) -> Iterator[System]:
    with System(settings_for(mortal_redis.url), workers=2) as system:
        yield system


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_restart_of_redis(
    number: signal.Signals, robust: System, mortal_redis: RedisServer, receiver: Receiver
) -> None:
    client = Client(robust.url, robust.settings)
    (api,) = robust.apis
    gate = asyncio.Event()
    receiver.respond(200, after=gate, path="/under-way", times=None)
    under_way = [await client.publish(f"{receiver.url}/under-way", b"x") for _ in range(5)]
    await receiver.wait_for(5)
    delayed = await client.publish(f"{receiver.url}/delayed", b"x", [("Upstash-Delay", "2s")])

    mortal_redis.kill(number)
    answer = await client.call("POST", f"/v2/publish/{receiver.url}/refused", body=b"x")
    assert answer.status == 503
    assert int(answer.header("retry-after") or "") >= 1
    assert "redis" not in answer.error.lower()
    for method, target in (("GET", f"/v2/messages/{delayed}"), ("GET", "/v2/dlq"), ("POST", "/v2/keys/rotate")):
        answer = await client.call(method, target)
        assert (answer.status, bool(answer.header("retry-after"))) == (503, True), target
    await eventually(lambda: api.get("/readyz")[0] == 503)
    assert api.get("/livez")[0] == 200
    await eventually(lambda: "qstash_clone_store_up 0" in api.get("/metrics")[1].decode())
    for worker in robust.workers:
        await eventually(lambda worker=worker: worker.get("/readyz")[0] == 503)
        assert worker.get("/livez")[0] == 200
    gate.set()  # The attempts end while there is nobody to tell.

    mortal_redis.start()
    for process in robust.processes:
        await eventually(process.is_ready)
    after = await client.publish(f"{receiver.url}/after", b"x")
    await receiver.wait_for(7)
    for message_id in (*under_way, delayed, after):
        (attempt,) = await eventually(lambda message_id=message_id: robust.attempts(message_id))
        assert attempt["decision"] == "delivered"
    # The lease is 20 seconds, the outage was shorter: nothing was delivered twice.
    assert Counter(request.target for request in receiver.requests) == {"/under-way": 5, "/delayed": 1, "/after": 1}
    assert {request.header("Upstash-Message-Id") for request in receiver.requests} == {*under_way, delayed, after}


async def test_processes_started_before_redis_wait_for_it(mortal_redis: RedisServer, receiver: Receiver) -> None:
    mortal_redis.kill()
    system = System(settings_for(mortal_redis.url, key_namespace="early"))
    client = Client(system.url, system.settings)
    try:
        for process in system.processes:
            process.start()
        await eventually(lambda: _lives(system))
        assert not any(process.is_ready() for process in system.processes)
        assert (await client.call("POST", f"/v2/publish/{receiver.url}", body=b"x")).status == 503
        mortal_redis.start()
        for process in system.processes:
            await eventually(process.is_ready)
        await client.publish(receiver.url, b"x")
        await receiver.wait_for(1)
    finally:
        system.end()


def _lives(system: System) -> bool:
    try:
        return all(process.get("/livez")[0] == 200 for process in system.processes)
    except OSError:
        return False

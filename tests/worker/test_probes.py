"""Liveness, readiness and metrics over real connections."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from qstash_clone.errors import ConfigurationError, StorageUnavailable
from tests.worker.rig import ManualClock
from worker.health import STALLED_AFTER_MS, Health
from worker.probes import MAX_REQUEST_BYTES, Probes


class Asked:
    """Probes on a free port."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.health = Health(self.clock)
        self.probes = Probes(self.health)
        self.port = 0

    async def raw(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        try:
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()

    async def get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        answer = await self.raw(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    asked = Asked()
    asked.port = await asked.probes.start("127.0.0.1", 0)
    yield asked
    await asked.probes.aclose()


async def test_livez_names_the_loops_that_are_stuck(asked: Asked) -> None:
    asked.health.beat("claim-0")
    assert await asked.get("/livez") == (200, b'{"live":true,"stalled_loops":[]}')
    asked.clock.advance(STALLED_AFTER_MS + 1)
    assert await asked.get("/livez") == (503, b'{"live":false,"stalled_loops":["claim-0"]}')


async def test_readyz_follows_the_store(asked: Asked) -> None:
    assert (await asked.get("/readyz"))[0] == 503
    asked.health.storage_worked("claim-0")
    assert await asked.get("/readyz?verbose") == (200, b'{"ready":true,"reason":null}')
    asked.health.storage_failed("claim-0", StorageUnavailable("Redis is away."))
    status, body = await asked.get("/readyz")
    assert status == 503
    assert b"Redis is away." in body


async def test_metrics_show_instruments_and_gauges(asked: Asked) -> None:
    asked.probes.gauges = lambda: {"worker_in_flight": ("Deliveries.", 7)}
    status, body = await asked.get("/metrics")
    assert status == 200
    assert b"qstash_clone_worker_in_flight 7.0" in body
    assert b"qstash_clone_attempts_total" in body


async def test_other_requests_are_refused(asked: Asked) -> None:
    assert (await asked.get("/"))[0] == 404
    assert (await asked.get("/livez", "POST"))[0] == 405
    assert await asked.get("/livez", "HEAD") == (200, b"")
    assert (await asked.raw(b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    assert await asked.raw(b"GET " + b"x" * (2 * MAX_REQUEST_BYTES)) == b""


async def test_a_port_in_use_is_named(asked: Asked) -> None:
    with pytest.raises(ConfigurationError, match=rf"cannot listen on 127.0.0.1:{asked.port} .*in use.*PROBE_PORT"):
        await Probes(asked.health).start("127.0.0.1", asked.port)

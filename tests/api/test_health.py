"""`/livez`, `/readyz`, `/metrics`: without a credential, and honest about the store."""

import asyncio
from types import SimpleNamespace

import httpx
import pytest

from qstash_clone.api.app import create_app
from qstash_clone.api.routes import health
from qstash_clone.api.routes.health import Cached
from qstash_clone.api.store_handle import StoreHandle
from qstash_clone.clock import SystemClock
from qstash_clone.errors import StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store, open_store


@pytest.fixture
def anonymous(settings: Settings, store: Store) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_app(settings, store)), base_url="http://api")


@pytest.fixture
def without_store(settings: Settings) -> httpx.AsyncClient:
    stores = StoreHandle(settings, SystemClock(), open_store)
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_app(settings, stores)), base_url="http://api")


async def test_a_ready_api_reports_workers_and_durability(anonymous: httpx.AsyncClient, store: Store) -> None:
    await store.delivery.heartbeat("worker-1", 200)
    assert (await anonymous.get("/livez")).json() == {"status": "ok"}
    ready = await anonymous.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "durability": "always", "workers": 1, "capacity": 200}


async def test_missing_workers_do_not_make_it_unready(anonymous: httpx.AsyncClient) -> None:
    ready = await anonymous.get("/readyz")
    assert (ready.status_code, ready.json()["workers"]) == (200, 0)


async def test_without_a_store_it_lives_and_is_not_ready(settings: Settings, without_store: httpx.AsyncClient) -> None:
    assert (await without_store.get("/livez")).status_code == 200
    ready = await without_store.get("/readyz")
    assert ready.status_code == 503
    assert "cannot take a message durably" in ready.json()["error"]
    metrics = await without_store.get("/metrics")
    assert "qstash_clone_store_up 0.0" in metrics.text
    assert "qstash_clone_dead_letters" not in metrics.text
    answer = await without_store.post(
        "/v2/publish/https://example.com", headers={"authorization": f"Bearer {settings.token}"}
    )
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_metrics_tell_depth_and_requests(anonymous: httpx.AsyncClient, settings: Settings) -> None:
    headers = {"authorization": f"Bearer {settings.token}", "upstash-delay": "1h"}
    await anonymous.post("/v2/publish/https://example.com", headers=headers)
    answer = await anonymous.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert "qstash_clone_waiting_timers 1.0" in lines
    assert "qstash_clone_store_up 1.0" in lines
    assert any(line.startswith('qstash_clone_http_requests_total{route="publish",status="2xx"}') for line in lines)
    assert any(line.startswith("qstash_clone_publish_duration_seconds_bucket") for line in lines)


async def test_probes_ask_the_store_once_a_second() -> None:
    asked: list[None] = []

    async def ask() -> int:
        asked.append(None)
        return len(asked)

    cached = Cached(ask)
    assert [await cached.get() for _ in range(3)] == [1, 1, 1]


async def test_probes_that_wait_for_a_slow_answer_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    now_s = 0.0
    monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: now_s))

    async def ask() -> int:
        nonlocal now_s
        asked.append(None)
        await asyncio.sleep(0)
        now_s += 2
        return len(asked)

    cached = Cached(ask)
    assert await asyncio.gather(*[cached.get() for _ in range(5)]) == [1] * 5


async def test_a_probe_that_fails_is_asked_again(settings: Settings) -> None:
    async def refuse(settings: Settings) -> Store:
        raise StorageUnavailable("away")

    handle = StoreHandle(settings, SystemClock(), refuse)
    with pytest.raises(StorageUnavailable):
        _ = handle.publishing

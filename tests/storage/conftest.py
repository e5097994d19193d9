"""Every test here runs on every engine of this machine, and leaves a store behind that keeps its invariants."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest

from qstash_clone.domain.message import Claim
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import CONSUMER_GROUP, PartitionKeys
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store, open_store
from tests.support.lossy_proxy import LossyProxy
from tests.support.redis_server import RedisServer, find_engines
from tests.support.snapshot import Inspector, Partition

_ENGINES = find_engines()
_CHOSEN = os.environ.get("QSTASH_CLONE_TEST_ENGINE")
ENGINES = [_CHOSEN] if _CHOSEN else list(_ENGINES)
IS_LONG = bool(os.environ.get("QSTASH_CLONE_TEST_LONG"))
"""The large matrices run on every engine too."""

AgeLeases = Callable[..., Awaitable[None]]
Look = Callable[..., Partition]
Opened = Callable[[Settings], Awaitable[Store]]
MoveClock = Callable[[int], Awaitable[None]]
StopClock = Callable[[int | None], Awaitable[None]]


def script_names() -> list[str]:
    """Of every script of the store."""
    folder = resources.files("qstash_clone.storage") / "lua"
    return sorted(path.name.removesuffix(".lua") for path in folder.iterdir() if path.name.endswith(".lua"))


@pytest.fixture(scope="session")
def redis_servers() -> Iterator[Callable[[str], RedisServer]]:
    """One server per engine, started when first asked for: tests come in any order."""
    running: dict[str, RedisServer] = {}

    def server_of(name: str) -> RedisServer:
        if name not in running:
            running[name] = RedisServer(_ENGINES[name]).start()
        return running[name]

    yield server_of
    for server in running.values():
        server.stop()


@pytest.fixture(scope="session", params=ENGINES)
def redis_server(request: pytest.FixtureRequest, redis_servers: Callable[[str], RedisServer]) -> RedisServer:
    return redis_servers(request.param)


@pytest.fixture
def partitions() -> int:
    """Tests with more than one parametrise this."""
    return 1


@pytest.fixture
def settings(settings: Settings, partitions: int) -> Settings:
    return replace(settings, partitions=partitions)


@pytest.fixture
def inspector(redis_url: str) -> Iterator[Inspector]:
    inspector = Inspector(redis_url)
    yield inspector
    inspector.close()


@pytest.fixture
def breaks_invariants() -> None:
    """To be asked for by tests that plant damage no script could do; the reason belongs into the test."""


@pytest.fixture(autouse=True)
def sound_store(request: pytest.FixtureRequest) -> Iterator[None]:
    """Afterwards: every key has a lifetime or a documented owner, every message is where its state says."""
    if "settings" not in request.fixturenames:
        yield
        return
    settings: Settings = request.getfixturevalue("settings")
    inspector: Inspector = request.getfixturevalue("inspector")
    yield
    is_damaged = "breaks_invariants" in request.fixturenames
    problems = [] if is_damaged else inspector.problems(settings.key_namespace, settings.partitions)
    inspector.clear(settings.key_namespace)
    assert problems == []


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    """Opens stores and closes them at the end."""
    stores: list[Store] = []

    async def open_another(settings: Settings) -> Store:
        stores.append(await open_store(settings))
        return stores[-1]

    yield open_another
    for store in stores:
        await store.aclose()


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    """An empty store with one live worker, `w1`, that can hold 100 deliveries."""
    store = await open_store(settings)
    await store.delivery.heartbeat("w1", 100)
    yield store
    await store.aclose()


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[LossyProxy]:
    async with LossyProxy(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def lossy_store(store: Store, proxy: LossyProxy, settings: Settings) -> AsyncIterator[Store]:
    """Another process's view of the same store, through the proxy. Redis knows all scripts."""
    lossy_store = await open_store(replace(settings, redis_url=proxy.url))
    for name in script_names():
        await store.commands.send("SCRIPT", "LOAD", Script(name).text)
    yield lossy_store
    await lossy_store.aclose()


@pytest.fixture
def look(inspector: Inspector, settings: Settings) -> Look:
    """What a partition holds right now."""

    def look(partition: int = 0) -> Partition:
        return inspector.read(settings.key_namespace, partition, settings.partitions)

    return look


@pytest.fixture
def age_leases(redis_client: Any, settings: Settings) -> AgeLeases:
    """Makes leases look abandoned for an hour, as if their workers had died then."""

    async def age(claims: "list[Claim] | None" = None, *, partition: int = 0, consumer: str = "w1") -> None:
        keys = PartitionKeys(settings.key_namespace, partition, settings.partitions)
        if claims is None:
            pending = await redis_client.xpending_range(keys.ready, CONSUMER_GROUP, "-", "+", 10_000)
            owned = [(item["message_id"], item["consumer"]) for item in pending]
        else:
            owned = [(claim.entry_id, consumer) for claim in claims]
        for entry_id, owner in owned:
            await redis_client.xclaim(keys.ready, CONSUMER_GROUP, owner, 0, [entry_id], idle=3_600_000, justid=True)

    return age


@pytest.fixture
def stop_clock(redis_client: Any, settings: Settings) -> StopClock:
    """Lets the store's clock stand still at a time; None lets it run again."""

    async def stop(at_ms: int | None) -> None:
        for partition in range(settings.partitions):
            meta = PartitionKeys(settings.key_namespace, partition, settings.partitions).meta
            await (redis_client.hdel(meta, "fz") if at_ms is None else redis_client.hset(meta, "fz", at_ms))

    return stop

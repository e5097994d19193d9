"""A private redis-server per test process, and per test a store on key names of its own."""

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import redis.asyncio

from qstash_clone.settings import Settings
from qstash_clone.storage import selection
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.store import Store, open_store
from tests.support.redis_server import RedisServer, find_engines

_namespaces = (f"t{number}" for number in itertools.count())

TOKEN = "test-token-0123456789abcdef"
CURRENT_KEY = "sig_testcurrent0123456789abcdefgh"
NEXT_KEY = "sig_testnext0123456789abcdefghijk"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """This test process's own server; QSTASH_CLONE_TEST_ENGINE chooses among those found."""
    engines = find_engines()
    name = os.environ.get("QSTASH_CLONE_TEST_ENGINE") or next(iter(engines))
    server = RedisServer(engines[name]).start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def time_for_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages do not end early because the machine is busy; tests of that set a limit of their own."""
    monkeypatch.setattr(selection, "MAX_WORK_S", 60)


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    return redis_server.url


@pytest.fixture
def settings(redis_url: str) -> Settings:
    """Settings on a fresh key namespace."""
    return Settings(
        redis_url=redis_url,
        key_namespace=next(_namespaces),
        token=TOKEN,
        current_signing_key=CURRENT_KEY,
        next_signing_key=NEXT_KEY,
        allow_private_destinations=True,
    )


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    """An empty store, ready for use."""
    store = await open_store(settings)
    yield store
    await store.aclose()


@pytest.fixture
def keys(settings: Settings) -> PartitionKeys:
    """The keys of the store's first partition."""
    return PartitionKeys(settings.key_namespace, 0, settings.partitions)


@pytest.fixture
async def redis_client(redis_url: str) -> AsyncIterator["redis.asyncio.Redis"]:
    """A raw client, for looking behind the store."""
    client = redis.asyncio.Redis.from_url(redis_url)  # pyright: ignore[reportUnknownMemberType]
    yield client
    await client.aclose()


@pytest.fixture
def move_clock(redis_client: "redis.asyncio.Redis", settings: Settings) -> Callable[[int], Awaitable[None]]:
    """Moves the store's clock by some ms: delays, retries and retention follow, leases keep real time."""

    async def move(ms: int) -> None:
        for partition in range(settings.partitions):
            keys = PartitionKeys(settings.key_namespace, partition, settings.partitions)
            await redis_client.hincrby(keys.meta.decode(), "off", ms)  # pyright: ignore

    return move

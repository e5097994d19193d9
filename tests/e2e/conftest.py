"""One running system for most scenarios: Redis, an api and two workers as real processes.

What they see of the protocol is noted on its way to the api, and held against docs/reference/conformance.md.
"""

import json
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from qstash import AsyncQStash

from qstash_clone.settings import Settings
from tests.conformance import matrix
from tests.conformance.record import VARIABLE
from tests.conftest import CURRENT_KEY, NEXT_KEY, TOKEN
from tests.e2e import typescript_sdk
from tests.support.client import Client, check_signature
from tests.support.dev_clock import DevClock
from tests.support.gates import Gates
from tests.support.processes import System, tapped
from tests.support.receiver import ReceivedRequest, Receiver
from tests.support.redis_server import RedisServer, find_engines
from tests.support.tap import Tap

TAP = pytest.StashKey[Tap]()

collect_ignore = [
    name
    for name, is_possible in (
        ("test_curl.py", shutil.which("curl") is not None),
        ("test_event_streams.py", shutil.which("curl") is not None),
        ("test_howto_pages.py", shutil.which("curl") is not None),
        ("test_kafka_curl.py", shutil.which("curl") is not None),
        ("test_typescript_dev_mode.py", typescript_sdk.IS_INSTALLED),
        ("test_typescript_kafka.py", typescript_sdk.IS_KAFKA_INSTALLED),
        ("test_typescript_sdk.py", typescript_sdk.IS_INSTALLED),
    )
    if not is_possible
]


@pytest.fixture(scope="session", autouse=True)
def tap(pytestconfig: pytest.Config) -> Iterator[Tap]:
    """Stands before every api of these tests."""
    with tapped() as tap:
        pytestconfig.stash[TAP] = tap
        yield tap


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test that passes has seen what the page on conformance says it saw."""
    tap = item.config.stash[TAP]
    tap.exchanges.clear()
    result = yield
    seen = {row for exchange in tap.exchanges for row in matrix.rows_of(exchange)}
    name = item.nodeid.removeprefix("tests/e2e/")
    if folder := os.environ.get(VARIABLE):
        with (Path(folder) / f"{os.getpid()}.jsonl").open("a") as recording:
            recording.write(json.dumps({"test": name, "rows": sorted(seen)}) + "\n")
    else:
        missing = matrix.claims_of(name) - seen
        assert not missing, f"recorded.json says it saw {sorted(missing)}; `make matrix` records anew"
    return result


def new_redis() -> RedisServer:
    """A server on a folder of its own, started; QSTASH_CLONE_TEST_ENGINE chooses among those found."""
    engines = find_engines()
    return RedisServer(engines[os.environ.get("QSTASH_CLONE_TEST_ENGINE") or next(iter(engines))]).start()


def settings_for(redis_url: str, **changes: object) -> Settings:
    """Settings that may deliver to this machine."""
    values: dict[str, object] = {
        "redis_url": redis_url,
        "token": TOKEN,
        "current_signing_key": CURRENT_KEY,
        "next_signing_key": NEXT_KEY,
        "allow_private_destinations": True,
    }
    return Settings(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def e2e_redis() -> Iterator[RedisServer]:
    """Apart from the one that other tests look into: workers ask it something all the time."""
    server = new_redis()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def system(e2e_redis: RedisServer) -> Iterator[System]:
    """Shared by all scenarios that leave it as it was; delivered once means once among them all."""
    with System(settings_for(e2e_redis.url, worker_concurrency=16), workers=2) as system:
        yield system


@pytest.fixture
def client(system: System) -> Client:
    return Client(system.url, system.settings)


@pytest.fixture(scope="session")
def clocked(e2e_redis: RedisServer) -> Iterator[System]:
    """A system whose clock tests move, as `dev` lets them; each finds it running, at some time in the future."""
    settings = settings_for(e2e_redis.url, key_namespace="clocked", region="EU-WEST-1", dev=True)
    with System(settings, workers=2) as system:
        yield system


@pytest.fixture
def later(clocked: System) -> Client:
    """A client of the system whose clock moves."""
    return Client(clocked.url, clocked.settings)


@pytest.fixture
async def clock(later: Client) -> AsyncIterator[DevClock]:
    """The clock that `later` goes by."""
    clock = DevClock(later)
    yield clock
    await clock.go_on()


@asynccontextmanager
async def connected(url: str, token: str) -> AsyncGenerator[AsyncQStash]:
    """The official SDK, unchanged, on one api."""
    sdk = AsyncQStash(token, base_url=url)
    try:
        yield sdk
    finally:
        await sdk.http._client.aclose()  # pyright: ignore[reportPrivateUsage]  (there is no public way)


@pytest.fixture
async def sdk(system: System) -> AsyncIterator[AsyncQStash]:
    """The official SDK on the shared system."""
    async with connected(system.url, system.settings.token) as sdk:
        yield sdk


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """On a port of its own, hence a lane of its own."""
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
def gates(receiver: Receiver) -> Gates:
    """Holds the receiver's answers back."""
    return Gates(receiver)


@pytest.fixture
def signed(receiver: Receiver) -> Callable[[ReceivedRequest], dict[str, object]]:
    """Asserts that the official receiver accepts a delivery, and returns the claims."""

    def check(request: ReceivedRequest) -> dict[str, object]:
        return check_signature(request, receiver.url + request.target, CURRENT_KEY, NEXT_KEY)

    return check

"""How much the fault runs break, and the accounts they end with."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.conftest import new_redis
from tests.support.receiver import Receiver
from tests.support.redis_server import RedisServer

_accounts: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "faults":
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.timeout(int(os.environ.get("FAULT_TIMEOUT_S", "600"))))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for account in _accounts:
        terminalreporter.section("account of the fault run")
        terminalreporter.write_line(account)


@pytest.fixture
def accounts() -> list[str]:
    """What is printed in the end."""
    return _accounts


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server of this test alone, to be killed and paused."""
    server = new_redis()
    yield server
    server.stop()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver

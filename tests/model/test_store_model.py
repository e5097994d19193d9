"""The model of messages, on one engine in its short form and on each in the long one."""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from qstash_clone.settings import Settings
from tests.model.machine import StoreMachine
from tests.model.running import IS_LONG, TIME_LIMIT_S, run_machine
from tests.support.redis_server import RedisServer, find_engines

ENGINES = find_engines()
CHOSEN = list(ENGINES) if IS_LONG else [os.environ.get("QSTASH_CLONE_TEST_ENGINE") or next(iter(ENGINES))]
EXAMPLES, STEPS = (300, 100) if IS_LONG else (25, 50)


@pytest.fixture(params=CHOSEN)
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Of this test alone: looking behind the store takes the longer the more keys there are."""
    server = RedisServer(ENGINES[request.param]).start()
    yield server
    server.stop()


@pytest.mark.timeout(TIME_LIMIT_S)
@pytest.mark.parametrize("partitions", [1, 3])
def test_random_lives(settings: Settings, partitions: int) -> None:
    changed = replace(settings, partitions=partitions, max_claims=3, lease_ms=600_000)
    run_machine(lambda: StoreMachine(changed), examples=EXAMPLES, steps=STEPS)

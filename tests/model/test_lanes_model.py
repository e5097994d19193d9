"""The model of queues and flow-control keys."""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from qstash_clone.settings import Settings
from tests.model.lanes_machine import LanesMachine
from tests.model.running import IS_LONG, TIME_LIMIT_S, run_machine
from tests.support.redis_server import RedisServer, find_engines

ENGINES = find_engines()
CHOSEN = [os.environ["QSTASH_CLONE_TEST_ENGINE"]] if "QSTASH_CLONE_TEST_ENGINE" in os.environ else list(ENGINES)
EXAMPLES, STEPS = (400, 120) if IS_LONG else (20, 60)


@pytest.fixture(params=CHOSEN)
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Of this test alone: looking behind the store takes the longer the more keys there are."""
    server = RedisServer(ENGINES[request.param]).start()
    yield server
    server.stop()


@pytest.mark.timeout(TIME_LIMIT_S)
def test_random_lives_of_lanes(settings: Settings) -> None:
    changed = replace(settings, lease_ms=600_000)
    run_machine(lambda: LanesMachine(changed), examples=EXAMPLES, steps=STEPS)

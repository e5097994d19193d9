"""The model of queues and flow-control keys: a short form, part of each run, and a long form on every engine:
QSTASH_CLONE_TEST_LONG=1."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test  # pyright: ignore[reportUnknownVariableType]

from qstash_clone.settings import Settings
from tests.model.lanes_machine import LanesMachine
from tests.support.redis_server import RedisServer, find_engines

IS_LONG = bool(os.environ.get("QSTASH_CLONE_TEST_LONG"))
ENGINES = find_engines()
CHOSEN = [os.environ["QSTASH_CLONE_TEST_ENGINE"]] if "QSTASH_CLONE_TEST_ENGINE" in os.environ else list(ENGINES)
EXAMPLES, STEPS = (400, 120) if IS_LONG else (20, 60)
PHASES = tuple(Phase) if IS_LONG else (Phase.explicit, Phase.reuse, Phase.generate)
"""Shrinking a failure takes minutes."""


@pytest.fixture(params=CHOSEN)
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Of this test alone: looking behind the store takes the longer the more keys there are."""
    server = RedisServer(ENGINES[request.param]).start()
    yield server
    server.stop()


@pytest.mark.timeout(3600 if IS_LONG else 120)
def test_random_lives_of_lanes(settings: Settings) -> None:
    changed = replace(settings, lease_ms=600_000)
    run: Any = run_state_machine_as_test
    run(
        lambda: LanesMachine(changed),
        settings=hypothesis_settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            phases=PHASES,
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much),
            print_blob=True,
        ),
    )

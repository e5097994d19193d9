"""The model's short form, part of each run, and its long form on every engine: QSTASH_CLONE_TEST_LONG=1."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test  # pyright: ignore[reportUnknownVariableType]

from qstash_clone.settings import Settings
from tests.model.machine import StoreMachine
from tests.support.redis_server import RedisServer, find_engines

IS_LONG = bool(os.environ.get("QSTASH_CLONE_TEST_LONG"))
ENGINES = find_engines()
CHOSEN = list(ENGINES) if IS_LONG else [os.environ.get("QSTASH_CLONE_TEST_ENGINE") or next(iter(ENGINES))]
EXAMPLES, STEPS = (300, 100) if IS_LONG else (25, 50)
PHASES = tuple(Phase) if IS_LONG else (Phase.explicit, Phase.reuse, Phase.generate)
"""Shrinking a failure takes minutes."""


@pytest.fixture(params=CHOSEN)
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Of this test alone: looking behind the store takes the longer the more keys there are."""
    server = RedisServer(ENGINES[request.param]).start()
    yield server
    server.stop()


@pytest.mark.timeout(3600 if IS_LONG else 120)
@pytest.mark.parametrize("partitions", [1, 3])
def test_random_lives(settings: Settings, partitions: int) -> None:
    changed = replace(settings, partitions=partitions, max_claims=3, lease_ms=600_000)
    run: Any = run_state_machine_as_test
    run(
        lambda: StoreMachine(changed),
        settings=hypothesis_settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            phases=PHASES,
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much),
            print_blob=True,
        ),
    )

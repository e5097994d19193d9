"""How a model is run: in a short form, part of each run of the tests, or in a long one, QSTASH_CLONE_TEST_LONG=1."""

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test  # pyright: ignore[reportUnknownVariableType]

IS_LONG = bool(os.environ.get("QSTASH_CLONE_TEST_LONG"))
TIME_LIMIT_S = 3600 if IS_LONG else 120
PHASES = tuple(Phase) if IS_LONG else (Phase.explicit, Phase.reuse, Phase.generate)
"""Shrinking a failure takes minutes."""


def run_machine(make: Callable[[], RuleBasedStateMachine], *, examples: int, steps: int) -> None:
    run: Any = run_state_machine_as_test
    run(
        make,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=PHASES,
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much),
            print_blob=True,
        ),
    )

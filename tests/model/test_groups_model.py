"""The model of consumer groups."""

import pytest

from tests.model.groups_machine import GroupsMachine
from tests.model.running import IS_LONG, TIME_LIMIT_S, run_machine

EXAMPLES, STEPS = (5_000, 100) if IS_LONG else (150, 40)


@pytest.mark.timeout(TIME_LIMIT_S)
def test_random_lives_of_consumer_groups() -> None:
    run_machine(GroupsMachine, examples=EXAMPLES, steps=STEPS)

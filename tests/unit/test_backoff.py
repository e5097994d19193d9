"""The default wait before another attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.backoff import default_delay_ms

DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("coefficient", "seconds"),
    [(2.0, [7, 54, 403, 2980, 22_026, 86_400, 86_400]), (2.5, [12, 148, 1808, 22_026, 86_400, 86_400, 86_400])],
)
def test_delays_are_those_of_the_protocol(coefficient: float, seconds: list[int]) -> None:
    delays_ms = [default_delay_ms(retried, coefficient=coefficient, cap_ms=DAY_MS) for retried in range(7)]
    assert delays_ms == [1000 * second for second in seconds]


@pytest.mark.parametrize("retried", [349, 350, 10**6, 10**400])
def test_huge_counts_reach_the_cap(retried: int) -> None:
    assert default_delay_ms(retried, coefficient=2.0, cap_ms=DAY_MS) == DAY_MS


def test_a_cap_below_a_second_holds() -> None:
    assert default_delay_ms(0, coefficient=2.0, cap_ms=250) == 250


@given(retried=st.integers(0, 2000), coefficient=st.floats(0, 1e300, allow_nan=False), cap_ms=st.integers(0, 10**12))
def test_delays_never_shrink_and_stay_within_the_cap(retried: int, coefficient: float, cap_ms: int) -> None:
    delay_ms = default_delay_ms(retried, coefficient=coefficient, cap_ms=cap_ms)
    assert 0 <= delay_ms <= default_delay_ms(retried + 1, coefficient=coefficient, cap_ms=cap_ms) <= cap_ms

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.durations import parse_duration_ms

UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("10s", 10_000),
        ("1h30m3s", 5_403_000),
        ("1d10h30m", 124_200_000),
        ("30", 30_000),
        ("0", 0),
        ("0s", 0),
        ("007m", 420_000),
        ("5s10s", 15_000),
        ("3s1h", 3_603_000),
        ("365d", 31_536_000_000),
    ],
)
def test_groups_add_up_and_digits_alone_are_seconds(text: str, expected_ms: int) -> None:
    assert parse_duration_ms(text) == expected_ms


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "s", "5x", "5ms", "5S", "-5s", "-5", "+5s", "1.5s", "1,5s", "5 s", " 5s", "5s ", "1h30", "h1"),
        *("5s\n", "\u0663s", "\u00b2", "\u0663", "1e3s", "0x10", "5s;", "9" * 201, "9" * 5000 + "s"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a duration"):
        parse_duration_ms(text)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.sampled_from("smhd")), min_size=1, max_size=8))
def test_value_is_the_sum_of_the_groups(groups: list[tuple[int, str]]) -> None:
    text = "".join(f"{count}{unit}" for count, unit in groups)
    assert parse_duration_ms(text) == sum(count * UNITS_MS[unit] for count, unit in groups)


@given(st.text(max_size=30))
def test_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_duration_ms(text) >= 0

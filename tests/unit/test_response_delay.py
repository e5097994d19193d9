"""Waits that a destination asks for."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.response_delay import delay_from_headers_ms

NOW_MS = 1_700_000_000_000  # Tue, 14 Nov 2023 22:13:20 GMT


def retry_after(value: str) -> int | None:
    return delay_from_headers_ms((("Retry-After", value),), NOW_MS)


@pytest.mark.parametrize(
    ("value", "delay_ms"),
    [
        ("0", 0),
        ("120", 120_000),
        (" 7 ", 7000),
        ("86400", 86_400_000),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30_000),
        ("Tue, 14 Nov 2023 22:13:20 GMT", 0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("6m5s", 365_000),
        ("1h", 3_600_000),
        ("1.5s", 1500),
        ("1m30.951s", 90_951),
        ("12ms", 12),
        ("500us", 1),
        ("1ns", 1),
        ("0s", 0),
        ("2000\u00b5s", 2),
        ("2000\u00c2\u00b5s", 2),  # the micro sign as UTF-8 bytes
        ("2000\u00ce\u00bcs", 2),  # Greek mu as UTF-8 bytes
    ],
)
def test_usable_values(value: str, delay_ms: int) -> None:
    assert retry_after(value) == delay_ms


@pytest.mark.parametrize(
    "value",
    [
        "",
        "-1",
        "soon",
        "1.5",
        "1e3",
        "86401",
        "1700000030",
        "9" * 5000,
        "24h1s",
        "1d",
        "\u0665",
        "s",
        "1 s",
        "-5s",
        "99999999999999h",
        "Wed, 15 Nov 2023 22:13:21 GMT",
        "Tue, 31 Feb 2023 00:00:00 GMT",
        "Tue, 14 Nov 2023 25:00:00 GMT",
        "Tuesday, 14-Nov-23 22:13:50 GMT",
        "Tue, 14 Nov 2023 22:13:50 +0000",
        "\u00e9",
    ],
)
def test_unusable_values_are_ignored(value: str) -> None:
    assert retry_after(value) is None


def test_no_header_means_no_delay() -> None:
    assert delay_from_headers_ms((("Content-Type", "text/plain"),), NOW_MS) is None


def test_headers_are_asked_in_order() -> None:
    lines = (
        ("X-Ratelimit-Reset-Tokens", "4s"),
        ("X-Ratelimit-Reset-Requests", "3s"),
        ("X-Ratelimit-Reset", "2"),
        ("Retry-After", "1"),
    )
    assert delay_from_headers_ms(lines, NOW_MS) == 1000
    assert delay_from_headers_ms(lines[:3], NOW_MS) == 2000
    assert delay_from_headers_ms(lines[:2], NOW_MS) == 4000
    assert delay_from_headers_ms(lines[1:2], NOW_MS) == 3000


def test_an_unusable_header_gives_way_to_the_next() -> None:
    lines = (("Retry-After", "never"), ("X-RateLimit-Reset", "1700000000"), ("x-ratelimit-reset-tokens", "6m0s"))
    assert delay_from_headers_ms(lines, NOW_MS) == 360_000


def test_of_several_lines_the_first_usable_one_counts() -> None:
    lines = (("Retry-After", "later"), ("Retry-After", "5"), ("Retry-After", "9"))
    assert delay_from_headers_ms(lines, NOW_MS) == 5000


@given(st.text(max_size=40))
def test_any_text_gives_nothing_or_at_most_a_day(value: str) -> None:
    delay_ms = retry_after(value)
    assert delay_ms is None or 0 <= delay_ms <= 86_400_000


@given(st.integers(0, 86_400))
def test_dates_and_seconds_agree(seconds: int) -> None:
    date = formatdate(NOW_MS / 1000 + seconds, usegmt=True)
    assert retry_after(date) == retry_after(str(seconds)) == seconds * 1000

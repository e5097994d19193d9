from typing import Any

import pytest

from qstash_clone.domain.lane_changes import (
    Pin,
    QueueChange,
    Unpin,
    parse_pin,
    parse_queue_change,
    parse_search,
    parse_unpin,
)
from qstash_clone.errors import InvalidRequest, QuotaExceeded


@pytest.mark.parametrize(
    ("body", "parallelism", "is_paused"),
    [
        ({"queueName": "a.B_c-1"}, None, None),
        ({"queueName": "a.B_c-1", "parallelism": None, "paused": None}, None, None),
        ({"queueName": "a.B_c-1", "parallelism": 1, "paused": False}, 1, False),
        ({"queueName": "a.B_c-1", "parallelism": 50, "paused": True}, 50, True),
    ],
)
def test_a_queue_as_it_is_asked_for(body: dict[str, Any], parallelism: int | None, is_paused: bool | None) -> None:
    expected = QueueChange(name="a.B_c-1", parallelism=parallelism, is_paused=is_paused)
    assert parse_queue_change(body, 50) == expected


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({}, "queueName: .*null"),
        ({"queueName": 7}, "queueName: .*7"),
        ({"queueName": ""}, "queueName: invalid name"),
        ({"queueName": "a b"}, "queueName: invalid name"),
        ({"queueName": "a" * 257}, "queueName: invalid name"),
        ({"queueName": "q", "parallelism": 0}, "parallelism: .*0"),
        ({"queueName": "q", "parallelism": -1}, "parallelism: .*-1"),
        ({"queueName": "q", "parallelism": 1.0}, "parallelism: .*1.0"),
        ({"queueName": "q", "parallelism": "1"}, "parallelism: "),
        ({"queueName": "q", "parallelism": True}, "parallelism: .*true"),
        ({"queueName": "q", "paused": 1}, "paused: .*1"),
        ({"queueName": "q", "paused": "true"}, "paused: "),
        ({"queueName": "q", "paralelism": 2}, '"paralelism" is not a field'),
    ],
)
def test_a_queue_that_cannot_be_understood(body: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        parse_queue_change(body, 50)


def test_a_parallelism_over_the_maximum() -> None:
    with pytest.raises(QuotaExceeded, match=r"parallelism: .*51.* maximum of 50"):
        parse_queue_change({"queueName": "q", "parallelism": 51}, 50)


@pytest.mark.parametrize(
    ("parameters", "pin"),
    [
        ([("parallelism", "3")], Pin(parallelism=3, rate=None, period_ms=1000)),
        ([("rate", "20")], Pin(parallelism=None, rate=20, period_ms=1000)),
        ([("rate", "20"), ("period", "604800")], Pin(parallelism=None, rate=20, period_ms=604_800_000)),
        (
            [("period", "120"), ("parallelism", "3"), ("rate", "20"), ("rate", "20")],
            Pin(parallelism=3, rate=20, period_ms=120_000),
        ),
    ],
)
def test_what_is_to_be_pinned(parameters: list[tuple[str, str]], pin: Pin) -> None:
    assert parse_pin(parameters) == pin


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ([], "nothing to pin"),
        ([("period", "5")], "period: it needs a rate"),
        ([("parallelism", "3"), ("period", "5")], "period: it needs a rate"),
        ([("parallelism", "0")], "parallelism: .*0"),
        ([("parallelism", "-1")], "parallelism: .*-1"),
        ([("parallelism", "")], "parallelism: "),
        ([("rate", "1.5")], "rate: .*1.5"),
        ([("rate", "9" * 19)], "rate: "),
        ([("rate", "1000000001")], "rate: "),
        ([("rate", "1"), ("period", "604801")], "period: .*604800"),
        ([("rate", "1"), ("period", "1s")], "period: .*1s"),
        ([("rate", "1"), ("rate", "2")], '"rate" is given twice'),
        ([("rate", "1"), ("priod", "2")], '"priod" is not a parameter'),
    ],
)
def test_a_pin_that_cannot_be_understood(parameters: list[tuple[str, str]], complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        parse_pin(parameters)


@pytest.mark.parametrize(
    ("parameters", "unpin"),
    [
        ([], Unpin(parallelism=False, rate=False)),
        ([("parallelism", "True")], Unpin(parallelism=True, rate=False)),
        ([("parallelism", "false"), ("rate", "1")], Unpin(parallelism=False, rate=True)),
    ],
)
def test_what_is_to_be_unpinned(parameters: list[tuple[str, str]], unpin: Unpin) -> None:
    assert parse_unpin(parameters) == unpin


@pytest.mark.parametrize("parameters", [[("rate", "yes")], [("rate", "")], [("period", "true")]])
def test_an_unpin_that_cannot_be_understood(parameters: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidRequest, match=parameters[0][0]):
        parse_unpin(parameters)


def test_a_search() -> None:
    assert parse_search([]) == ""
    assert parse_search([("search", "tenant-")]) == "tenant-"
    with pytest.raises(InvalidRequest, match="serch"):
        parse_search([("serch", "x")])

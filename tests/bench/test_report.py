"""Figures, budgets and the table."""

import msgspec
import pytest

from bench.report import Budget, Figure, Report, compared, percentile, ratio_of_at_least


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1, 100), (0.999, 100), (0.001, 1)])
def test_percentile_is_the_smallest_value_that_enough_do_not_exceed(share: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.99) == 7.0


def test_ratio_is_the_median_of_the_pairs_ratios() -> None:
    figure = compared("m", "n", "/s", [100, 50, 90], [100, 100, 100])
    assert figure.ratio == 0.9
    assert figure.value == 90
    assert figure.reference == 100


def test_ratio_is_below_one_where_more_time_was_needed_than_by_the_reference() -> None:
    assert compared("m", "n", "ms", [4], [2], inverse=True).ratio == 0.5


def test_budget_of_a_ratio_is_kept_by_reaching_it() -> None:
    budget = ratio_of_at_least(0.65)
    assert budget.holds(1, 0.65)
    assert not budget.holds(1_000_000, 0.64)
    assert not budget.holds(1, None)


def test_budget_of_a_value_is_kept_by_staying_below_it() -> None:
    budget = Budget(limit=25, unit="ms")
    assert budget.holds(24.9, None)
    assert not budget.holds(25, None)


def test_table_shows_which_budgets_were_missed() -> None:
    report = Report(facts={}, mode="quick")
    report.figures = [
        Figure(measure="timers", name="lateness, p99", value=30.0, unit="ms", budget=Budget(limit=25, unit="ms")),
        Figure(measure="publish", name="requests", value=12345.6, unit="/s", reference=14000, ratio=0.88),
    ]
    lines = report.table().splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]][:7] == [
        "timers", "lateness, p99", "30 ms", "", "", "< 25 ms", "NO"
    ]  # fmt: skip
    assert "| 12,346 /s | 14,000 /s | 88%" in lines[3]
    assert len({len(line) for line in lines}) == 1


def test_json_holds_every_round_and_every_failure() -> None:
    report = Report(facts={"system": "x"}, mode="full")
    report.figures = [compared("m", "n", "/s", [1, 2, 3], [2, 2, 2], budget=ratio_of_at_least(0.65))]
    report.failures = ["m: 1 message is missing"]
    content = msgspec.json.decode(report.json())
    assert content["figures"][0]["rounds"] == [1, 2, 3]
    assert content["figures"][0]["within_budget"] is True
    assert content["failures"] == ["m: 1 message is missing"]

"""Figures, the table they are shown in, and the JSON they are kept as."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec


class BenchFailure(Exception):
    """Something that makes the figures worthless: a message missing, delivered twice or unsigned, a part that died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a figure has to keep to; see docs/reference/benchmarks.md."""

    limit: float
    unit: str
    is_floor: bool = False
    """The figure has to reach the limit; otherwise it must stay below it."""
    of_ratio: bool = False
    """The limit is for the ratio to the reference, not for the value."""

    def holds(self, value: float, ratio: float | None) -> bool:
        measured = ratio if self.of_ratio else value
        if measured is None:
            return False
        return measured >= self.limit if self.is_floor else measured < self.limit

    def __str__(self) -> str:
        sign = "≥" if self.is_floor else "<"
        if self.of_ratio:
            return f"{sign} {self.limit:.0%}"
        return f"{sign} {self.limit:g} {self.unit}".rstrip()


def ratio_of_at_least(limit: float) -> Budget:
    """A budget for the ratio to the reference."""
    return Budget(limit=limit, unit="", is_floor=True, of_ratio=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of the table. Where several rounds were made, value, reference and ratio are medians of theirs."""

    measure: str
    name: str
    value: float
    unit: str
    reference: float | None = None
    ratio: float | None = None
    budget: Budget | None = None
    note: str = ""
    rounds: tuple[float, ...] = ()
    reference_rounds: tuple[float, ...] = ()
    is_disturbed: bool = False
    """Something outside the measure used the machine as well, and no calm round could be had."""

    @property
    def is_within_budget(self) -> bool | None:
        return None if self.budget is None else self.budget.holds(self.value, self.ratio)


def compared(
    measure: str,
    name: str,
    unit: str,
    rounds: Sequence[float],
    reference_rounds: Sequence[float],
    *,
    inverse: bool = False,
    budget: Budget | None = None,
    note: str = "",
    is_disturbed: bool = False,
) -> Figure:
    """A figure with its reference; `inverse` where less is better, so that a ratio below 1 always means slower.

    The ratio is the median of the rounds' ratios: a round and its reference ran next to each other.
    """
    pairs = list(zip(rounds, reference_rounds, strict=True))
    ratios = [(other / own if inverse else own / other) for own, other in pairs]
    return Figure(
        measure=measure,
        name=name,
        value=statistics.median(rounds),
        unit=unit,
        reference=statistics.median(reference_rounds),
        ratio=statistics.median(ratios),
        budget=budget,
        note=note,
        rounds=tuple(rounds),
        reference_rounds=tuple(reference_rounds),
        is_disturbed=is_disturbed,
    )


@dataclass(slots=True)
class Report:
    """Everything one run found out."""

    facts: dict[str, str]
    mode: str
    figures: list[Figure] = field(default_factory=list[Figure])
    failures: list[str] = field(default_factory=list[str])
    seconds: float = 0.0

    def table(self) -> str:
        """The figures as a Markdown table."""
        head = ("measure", "figure", "value", "reference", "ratio", "budget", "kept", "remarks")
        rows = [head, *(_cells(figure) for figure in self.figures)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
        ]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join(lines)

    def json(self) -> bytes:
        """The report with every round."""
        figures = [_fields(figure) for figure in self.figures]
        content: dict[str, Any] = {
            "facts": self.facts,
            "mode": self.mode,
            "seconds": round(self.seconds, 1),
            "figures": figures,
            "failures": self.failures,
        }
        return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _cells(figure: Figure) -> tuple[str, ...]:
    kept = {True: "yes", False: "disturbed" if figure.is_disturbed else "NO", None: ""}[figure.is_within_budget]
    return (
        figure.measure,
        figure.name,
        f"{_short(figure.value)} {figure.unit}".rstrip(),
        "" if figure.reference is None else f"{_short(figure.reference)} {figure.unit}".rstrip(),
        "" if figure.ratio is None else f"{figure.ratio:.0%}",
        "" if figure.budget is None else str(figure.budget),
        kept,
        figure.note,
    )


def _fields(figure: Figure) -> dict[str, Any]:
    return {
        "measure": figure.measure,
        "name": figure.name,
        "value": figure.value,
        "unit": figure.unit,
        "reference": figure.reference,
        "ratio": figure.ratio,
        "budget": None if figure.budget is None else str(figure.budget),
        "within_budget": figure.is_within_budget,
        "disturbed": figure.is_disturbed,
        "note": figure.note,
        "rounds": figure.rounds,
        "reference_rounds": figure.reference_rounds,
    }


def _short(value: float) -> str:
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1))]


def shares(parts: Mapping[str, float], others: float, machine: float) -> str:
    """Who used how much of one core, the busiest first, then everything outside the measure, then all cores."""
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    used = ", ".join(f"{name} {share:.0%}" for name, share in ordered)
    return f"of a core: {used}, others {others:.0%}; all cores {machine:.0%} busy"

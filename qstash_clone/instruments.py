"""Counters and histograms whose cells lie in memory shared by all processes of one service.

`prometheus_client` renders them. Its own multi-process mode keeps a file per process and metric, must be chosen
before the first import and costs several microseconds per observation; here a process adds to its own row of a
shared table, so a scrape answered by any process is exact, and a restarted process goes on where the old one ended.
Label values are fixed when an instrument is declared, which is before the service forks; others count as `other`.
"""

import bisect
import mmap
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PREFIX = "qstash_clone_"
_ROWS = 64
"""One per process, as many as the settings allow."""
_CELLS = 2048
"""Per row; 64 rows are 1 MiB of address space, of which only touched pages exist."""

_table = memoryview(mmap.mmap(-1, _ROWS * _CELLS * 8)).cast("d")


class _Row:
    """The row of this process."""

    def __init__(self) -> None:
        self.cells = _table[:_CELLS]
        self.rows = 1
        self.used = 0

    def reserve(self, count: int) -> int:
        if self.used + count > _CELLS:
            raise ValueError(f"All instruments together have more than {_CELLS} cells.")
        first, self.used = self.used, self.used + count
        return first


_row = _Row()


def use_row(index: int, of: int) -> None:
    """Count in row `index` from now on, and sum over the first `of` rows.

    For a forked process, which must not share a row with a live one.
    """
    _row.cells = _table[index * _CELLS : (index + 1) * _CELLS]
    _row.rows = of


def _total(cell: int) -> float:
    return sum(_table[row * _CELLS + cell] for row in range(_row.rows))


class Counter:
    """A number that only grows. Add to it from one thread per process."""

    __slots__ = ("_cell", "help", "name")

    def __init__(self, name: str, help: str) -> None:  # noqa: A002 (what Prometheus calls it)
        self.name = name
        self.help = help
        self._cell = _row.reserve(1)
        _instruments.append(self)

    def inc(self, amount: float = 1) -> None:
        """Add `amount`."""
        _row.cells[self._cell] += amount

    @property
    def value(self) -> float:
        """The sum over all processes."""
        return _total(self._cell)

    def family(self) -> Metric:
        family = CounterMetricFamily(_PREFIX + self.name, self.help)
        family.add_metric([], self.value)
        return family


class LabeledCounter:
    """One counter per combination of label values, all of them declared here."""

    __slots__ = ("_cells", "_labels", "help", "name")

    def __init__(self, name: str, help: str, labels: Mapping[str, Sequence[str]]) -> None:  # noqa: A002
        self.name = name
        self.help = help
        self._labels = {label: (*values, "other") for label, values in labels.items()}
        combinations = list(product(*self._labels.values()))
        first = _row.reserve(len(combinations))
        self._cells = {values: first + index for index, values in enumerate(combinations)}
        _instruments.append(self)

    def inc(self, *values: str, amount: float = 1) -> None:
        """Add to the counter of these label values, given in the order of declaration."""
        cell = self._cells.get(values)
        _row.cells[self._cell_of_others(values) if cell is None else cell] += amount

    def value(self, *values: str) -> float:
        """The sum over all processes."""
        return _total(self._cells[values])

    def _cell_of_others(self, values: tuple[str, ...]) -> int:
        known = zip(values, self._labels.values(), strict=True)
        return self._cells[tuple(value if value in allowed else "other" for value, allowed in known)]

    def family(self) -> Metric:
        family = CounterMetricFamily(_PREFIX + self.name, self.help, labels=list(self._labels))
        for values, cell in self._cells.items():
            total = _total(cell)
            if total or "other" not in values:
                family.add_metric(values, total)
        return family


class Histogram:
    """Observations counted in buckets, and their sum."""

    __slots__ = ("_bounds", "_cell", "help", "name")

    def __init__(self, name: str, help: str, bounds: Sequence[float]) -> None:  # noqa: A002
        self.name = name
        self.help = help
        self._bounds = tuple(bounds)
        self._cell = _row.reserve(len(self._bounds) + 2)
        _instruments.append(self)

    def observe(self, value: float) -> None:
        """Count one observation."""
        cells = _row.cells
        cells[self._cell] += value
        cells[self._cell + 1 + bisect.bisect_left(self._bounds, value)] += 1

    @property
    def count(self) -> int:
        """How many observations there were, over all processes."""
        return int(sum(_total(self._cell + 1 + index) for index in range(len(self._bounds) + 1)))

    @property
    def sum(self) -> float:
        """Their sum, over all processes."""
        return _total(self._cell)

    def family(self) -> Metric:
        buckets: list[tuple[str, float]] = []
        running = 0.0
        for index, bound in enumerate((*self._bounds, float("inf"))):
            running += _total(self._cell + 1 + index)
            buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), running))
        family = HistogramMetricFamily(_PREFIX + self.name, self.help)
        family.add_metric([], buckets, self.sum)
        return family


_instruments: list[Counter | LabeledCounter | Histogram] = []


class _Instruments(Collector):
    def __init__(self, gauges: Mapping[str, tuple[str, float]]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        for instrument in _instruments:
            yield instrument.family()
        for name, (help_text, value) in self._gauges.items():
            family = GaugeMetricFamily(_PREFIX + name, help_text)
            family.add_metric([], value)
            yield family


def render_metrics(gauges: Mapping[str, tuple[str, float]]) -> bytes:
    """All instruments and the given gauges (name to help and value) in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Instruments(gauges))
    return generate_latest(registry)

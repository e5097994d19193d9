"""The reference pages name everything that exists."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import worker.events
from qstash_clone import observability
from qstash_clone.api.app import route_table
from qstash_clone.api.errors import STATUSES
from qstash_clone.api.hot_path import Publisher
from qstash_clone.api.routes.health import gauges_of as api_gauges
from qstash_clone.api.topics.app import topic_table
from qstash_clone.clock import SystemClock
from qstash_clone.instruments import Counter, Histogram, LabeledCounter
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store
from worker.assembly import gauges_of as worker_gauges

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def names_in_first_column(page: str) -> set[str]:
    cells = re.findall(r"^\| (.+?) \|", (REFERENCE / page).read_text(), re.MULTILINE)
    return {name.partition("{")[0] for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_event_is_described() -> None:
    constants = {**vars(observability), **vars(worker.events)}
    events = {
        value
        for name, value in constants.items()
        if name.isupper() and not name.startswith("_") and isinstance(value, str)
    }
    assert names_in_first_column("logs.md") == events


async def test_every_metric_is_described(settings: Settings, store: Store) -> None:
    described = names_in_first_column("metrics.md")
    instruments = [
        instrument
        for instrument in vars(observability).values()
        if isinstance(instrument, Counter | LabeledCounter | Histogram)
    ]
    named = {
        instrument.name if isinstance(instrument, Histogram) else f"{instrument.name}_total"
        for instrument in instruments
    }
    gauges = {**api_gauges(await store.admin.stats()), **worker_gauges(0, 0)}
    assert described == named | set(gauges)


def endpoints_described() -> set[str]:
    """Of a row such as "POST `/queues/{name}/pause`, `/resume`" both, without the names of their parameters."""
    found = set[str]()
    for cell in re.findall(r"^\| ([A-Z].+?) \|", (REFERENCE / "api.md").read_text(), re.MULTILINE):
        for methods, path, more in re.findall(r"((?:[A-Z]+, )*[A-Z]+) `(/[^`]+)`((?:, `/\w+`)*)", cell):
            siblings = [path.rpartition("/")[0] + end for end in re.findall(r"`(/\w+)`", more)]
            found |= {f"{method} {one}" for method in methods.split(", ") for one in (path, *siblings)}
    return {re.sub(r"{[^}]*}", "{}", endpoint) for endpoint in found}


def test_every_endpoint_is_described(settings: Settings, store: Store) -> None:
    clock = SystemClock()
    rows = route_table(replace(settings, dev=True), store, clock, Publisher(settings, store, clock))
    served = {
        f"{method} {re.sub('{[^}]*}', '{}', row.path)}"
        for row in rows
        for method in row.methods.split()
        # These are refused, or tolerated spellings of another path.
        if not row.path.endswith("/") and "//" not in row.path
    }
    # Outside of the table, or behind one of its rows that takes the rest of a path.
    served |= {"POST /v2/publish/{}", "POST /v2/enqueue/{}/{}", "POST /v2/batch"}
    served |= {"POST /v2/schedules/{}/pause", "POST /v2/schedules/{}/resume"}
    served |= {
        f"{method} {re.sub('{[^}]*}', '{}', row.path)}"
        for row in topic_table(settings, store)
        # The schema registry again.
        if not row.path.startswith("/confluent")
        for method in row.methods.split()
    }
    assert endpoints_described() == served - {"POST /v2/schedules"}


@pytest.mark.parametrize("status", sorted(set(STATUSES.values())))
def test_every_status_is_described(status: int) -> None:
    assert f"| {status} |" in (REFERENCE / "errors.md").read_text()

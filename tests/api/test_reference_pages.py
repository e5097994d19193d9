"""The reference pages name everything that exists."""

import re
from pathlib import Path

import pytest

import worker.events
from qstash_clone import observability
from qstash_clone.api.errors import STATUSES
from qstash_clone.api.routes.health import gauges_of
from qstash_clone.instruments import Counter, Histogram, LabeledCounter
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store

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
    assert described == named | set(gauges_of(await store.admin.stats()))


@pytest.mark.parametrize("status", sorted(set(STATUSES.values())))
def test_every_status_is_described(status: int) -> None:
    assert f"| {status} |" in (REFERENCE / "errors.md").read_text()

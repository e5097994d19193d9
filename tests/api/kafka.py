"""What the tests of the producer APIs share: records as they are stored, and ways to make the store fail."""

import json
from typing import Any

import pytest

from qstash_clone.storage.store import Store
from qstash_clone.topics.interface import ReadFrom
from qstash_clone.topics.records import StoredRecord

JSON_UTF8 = "application/json; charset=utf-8"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


async def stored_records(store: Store, name: str) -> list[StoredRecord]:
    """All records of a topic, one partition after the other; none if there is no such topic."""
    topic = await store.topics.get_topic(name)
    if topic is None:
        return []
    wanted = [ReadFrom(topic, number, 0) for number in range(topic.config.partitions)]
    slices = await store.topics.read(wanted, max_records=10_000, max_bytes=1 << 30)
    return [record for one in slices if one is not None for record in one.records]


def failing_append(monkeypatch: pytest.MonkeyPatch, store: Store, error: BaseException | None) -> None:
    """Every append raises this error; None lets them through again."""
    if error is None:
        monkeypatch.undo()
        return

    async def append(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(store.topics, "append", append)


def schema_text(**fields: str) -> str:
    """A record `com.acme.Order` with these fields."""
    return json.dumps(
        {
            "type": "record",
            "name": "Order",
            "namespace": "com.acme",
            "fields": [{"name": name, "type": of} for name, of in fields.items()],
        }
    )

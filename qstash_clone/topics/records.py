"""Topics, their partitions and what is stored in them."""

from typing import Final, Literal, NamedTuple

import msgspec

MAX_TIMESTAMP_MS: Final = 2**53 - 1
"""Times and offsets stay below it, because JSON clients keep numbers as IEEE doubles."""

MAX_PARTITIONS: Final = 1000

TimestampType = Literal["create", "append"]


class Record(msgspec.Struct, frozen=True):
    """What a producer sends. A key that is empty is not one that is missing."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    """In the order given; names may repeat."""
    timestamp_ms: int | None = None
    """None: when it is appended. At most `MAX_TIMESTAMP_MS`."""


class StoredRecord(msgspec.Struct, frozen=True):
    """A record with its place."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class TopicConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner of a topic decides. Kafka's names: `retention.ms`, `retention.bytes`, `message.timestamp.type`."""

    partitions: int
    """May grow, never shrink."""
    retention_ms: int = 7 * 24 * 3600 * 1000
    """-1: for ever."""
    retention_bytes: int = -1
    """Of each partition; -1: no limit."""
    timestamp_type: TimestampType = "create"
    """`append`: the time of a producer is replaced by that of the append."""


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """A topic that exists."""

    name: str
    generation: str
    """Another one each time a topic of this name is created: what belongs to an earlier one counts no more."""
    created_ms: int
    config: TopicConfig


class Place(NamedTuple):
    """A partition of a topic by its name, whether or not there is such a one."""

    topic: str
    partition: int


class Bounds(msgspec.Struct, frozen=True):
    """What of a partition can be read: offsets from `start` up to and not including `end`. Both only grow."""

    start: int
    end: int


class Slice(msgspec.Struct, frozen=True):
    """What was read from a partition: consecutive records, and its bounds at that moment."""

    records: tuple[StoredRecord, ...]
    bounds: Bounds


class Appended(msgspec.Struct, frozen=True):
    """Where the records of one append are, one number for each."""

    offsets: tuple[int, ...]
    """Ascending; consecutive unless there are many."""
    timestamps_ms: tuple[int, ...]


_NAME_CHARACTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
MAX_NAME_CHARACTERS: Final = 249
NAME_RULE: Final = f"use 1 to {MAX_NAME_CHARACTERS} of A-Z a-z 0-9 . _ - (and more than . or ..)"
"""What is told to those who send another name."""


def is_topic_name(text: str) -> bool:
    """Whether Kafka accepts it: 1 to 249 of `A-Z a-z 0-9 . _ -`, and neither `.` nor `..`."""
    return 0 < len(text) <= MAX_NAME_CHARACTERS and _NAME_CHARACTERS.issuperset(text) and text not in (".", "..")

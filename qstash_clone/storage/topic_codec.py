"""How topics and their records are kept in Redis; docs/reference/redis-keys.md is the reader's version."""

from typing import Any, Final

import msgspec

from qstash_clone.errors import StorageError
from qstash_clone.topics.records import Record, StoredRecord, Topic, TopicConfig

_FROM_PRODUCER: Final = 0x80
_TIME_BYTES: Final = 8


class StoredTopic(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A topic with what has to be done for it."""

    generation: str
    created_ms: int
    config: TopicConfig
    made: int = 0
    """Partitions whose logs are there. While they are fewer than the topic has, whoever sees it makes the others."""
    is_deleted: bool = False
    """There is no such topic any more; its logs may still have to be removed."""


_decode_topic = msgspec.msgpack.Decoder(StoredTopic).decode
encode_topic: Final = msgspec.msgpack.Encoder().encode
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]).decode


def decode_topic(name: str, encoded: bytes) -> StoredTopic:
    """Raises `StorageError` for what this release cannot read."""
    try:
        return _decode_topic(encoded)
    except msgspec.DecodeError as error:
        raise StorageError(f"The topic {name} cannot be read: {error}") from error


def shown(name: str, stored: StoredTopic) -> Topic:
    """The topic as others see it."""
    return Topic(name=name, generation=stored.generation, created_ms=stored.created_ms, config=stored.config)


def encode_record(record: Record) -> bytes:
    """Key, value and headers; the store puts the timestamp before them."""
    parts: Any = (record.key, record.value, record.headers)
    return _encode(parts)


def decode_record(offset: int, stored: bytes) -> StoredRecord:
    """Raises `StorageError` for what this release cannot read."""
    is_from_producer = stored[0] >= _FROM_PRODUCER
    timestamp_ms = int.from_bytes(stored[:_TIME_BYTES], "big") & ~(_FROM_PRODUCER << 56)
    try:
        key, value, headers = _decode(stored[2 * _TIME_BYTES if is_from_producer else _TIME_BYTES :])
    except msgspec.DecodeError as error:
        raise StorageError(f"The record at offset {offset} cannot be read: {error}") from error
    return StoredRecord(offset, timestamp_ms, key, value, headers)

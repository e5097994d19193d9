"""Message records: a fixed binary head that scripts change in place, then lane, message and body, then attempts.

The layout is in `docs/reference/redis-keys.md` and, for the scripts, in `lua/include/record.lua`.
"""

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from qstash_clone.domain.message import AttemptRecord, Claim, Message, State, StoredMessage
from qstash_clone.errors import StorageError
from qstash_clone.ids import MessageId

STORAGE_VERSION: Final = 1
"""Of everything in Redis: keys, records, scripts. A process refuses a store of another version."""

RECORD_FORMAT: Final = 1
MAX_LANE_BYTES: Final = 280

_HEAD: Final = struct.Struct(">BBBBII6s6s6sHII")
HEAD_BYTES: Final = _HEAD.size
_ATTEMPT_HEAD: Final = struct.Struct(">6sI")
CANCEL_REQUESTED: Final = 1

_encode_message = msgspec.msgpack.Encoder().encode
_decode_message = msgspec.msgpack.Decoder(Message).decode
_decode_attempt = msgspec.msgpack.Decoder(AttemptRecord).decode
_STATES = {ord(state.value): state for state in State}


def encode_message(message: Message) -> bytes:
    """The immutable part as publish.lua takes it."""
    return _encode_message(message)


def encode_attempt(attempt: AttemptRecord) -> bytes:
    """A failed attempt as settle.lua takes it."""
    return _encode_message(attempt)


def _ms(six_bytes: bytes) -> int:
    return int.from_bytes(six_bytes, "big")


def decode_claim(partition: int, entry_id: bytes, message_id: bytes, record: bytes) -> Claim:
    """A claim from what claim.lua returns; its body may be cut where the record was."""
    head = _HEAD.unpack_from(record)
    _, _, _, claims, generation, retried, due, created, _, lane_bytes, meta_bytes, body_bytes = head
    meta_at = HEAD_BYTES + lane_bytes
    body_at = meta_at + meta_bytes
    return Claim(
        partition=partition,
        entry_id=entry_id,
        id=MessageId(message_id),
        generation=generation,
        retried=retried,
        claims=claims,
        created_ms=_ms(created),
        due_ms=_ms(due),
        message=_decode_message(memoryview(record)[meta_at:body_at]),
        body=record[body_at : body_at + body_bytes],
        body_bytes=body_bytes,
    )


def body_range(record_head: bytes) -> tuple[int, int]:
    """First and last offset of the body in a record, from its first `HEAD_BYTES`."""
    head = _HEAD.unpack_from(record_head)
    first = HEAD_BYTES + head[9] + head[10]
    return first, first + head[11] - 1


def decode_record(message_id: MessageId, record: bytes) -> StoredMessage:
    """A whole record. Raises `StorageError` for one that this release cannot read."""
    if len(record) < HEAD_BYTES or record[0] != RECORD_FORMAT:
        raise StorageError(f"The record of {message_id.hex()} has a format that this release cannot read.")
    head = _HEAD.unpack_from(record)
    _, state, flags, claims, generation, retried, due, created, not_before, lane_bytes, meta_bytes, body_bytes = head
    lane_end = HEAD_BYTES + lane_bytes
    meta_end = lane_end + meta_bytes
    body_end = meta_end + body_bytes
    last: AttemptRecord | None = None
    for attempt in _attempts(record, body_end):
        last = attempt
    return StoredMessage(
        id=message_id,
        message=_decode_message(record[lane_end:meta_end]),
        body=record[meta_end:body_end],
        lane=record[HEAD_BYTES:lane_end].decode(),
        state=_STATES[state],
        cancel_requested=bool(flags & CANCEL_REQUESTED),
        generation=generation,
        claims=claims,
        retried=retried,
        created_ms=_ms(created),
        not_before_ms=_ms(not_before),
        due_ms=_ms(due),
        last_attempt=last,
    )


def _attempts(record: bytes, offset: int) -> Iterator[AttemptRecord]:
    while offset + _ATTEMPT_HEAD.size <= len(record):
        _, length = _ATTEMPT_HEAD.unpack_from(record, offset)
        offset += _ATTEMPT_HEAD.size
        yield _decode_attempt(record[offset : offset + length])
        offset += length

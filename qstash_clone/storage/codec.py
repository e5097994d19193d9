"""Message records: a fixed binary head that scripts change in place, then lane, message and body, then attempts.

The layout is in `docs/reference/redis-keys.md` and, for the scripts, in `lua/include/record.lua`.
"""

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from qstash_clone.domain.message import AttemptRecord, Claim, Deduplication, Message, State, StoredMessage
from qstash_clone.errors import StorageError
from qstash_clone.ids import MessageId
from qstash_clone.storage.interface import DeduplicationRecord

STORAGE_VERSION: Final = 1
"""Of everything in Redis: keys, records, scripts. A process refuses a store of another version."""

RECORD_FORMAT: Final = 1
MAX_LANE_BYTES: Final = 280

_HEAD: Final = struct.Struct(">BBBBHH6s6s6sBH3sI")
HEAD_BYTES: Final = _HEAD.size
_ATTEMPT_HEAD: Final = struct.Struct(">6sI")
CANCEL_REQUESTED: Final = 1
_DEDUPLICATION_ID_BYTES: Final = 12

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


def encode_deduplication(deduplication: Deduplication | None) -> bytes:
    """What identifies a repeat, as publish.lua takes it; empty for none."""
    return b"" if deduplication is None else b"%b%d" % (deduplication.digest, deduplication.window_ms)


def decode_deduplication(record: bytes) -> DeduplicationRecord:
    """A deduplication record as publish.lua wrote it."""
    return DeduplicationRecord(
        message_id=MessageId(record[:_DEDUPLICATION_ID_BYTES]),
        expires_ms=_number(record[_DEDUPLICATION_ID_BYTES:]),
    )


def find_lane(lane: bytes, encoded_message: bytes) -> int:
    """Offset of a host lane's host in the encoded message, or 0 if it does not stand there character for character.

    The destination comes first in the encoding, so its host is within the first bytes.
    """
    at = encoded_message.find(lane[2:], 0, len(lane) + 12) if lane.startswith(b"h:") else -1
    return max(at, 0)


def _number(big_endian: bytes) -> int:
    return int.from_bytes(big_endian, "big")


def _bounds(head: tuple[int, ...], meta_bytes: bytes) -> tuple[int, int, int]:
    """Offsets of the encoded message, of the body, and of the attempts behind it."""
    *_, lane_at, lane_bytes, _, body_bytes = head
    meta_at = HEAD_BYTES + (0 if lane_at else lane_bytes)
    body_at = meta_at + _number(meta_bytes)
    return meta_at, body_at, body_at + body_bytes


def decode_claim(partition: int, entry_id: bytes, message_id: bytes, record: bytes) -> Claim:
    """A claim from what claim.lua returns; its body may be cut where the record was."""
    head = _HEAD.unpack_from(record)
    _, _, _, claims, generation, retried, due, created, not_before, _, _, meta_bytes, body_bytes = head
    meta_at, body_at, body_end = _bounds(head, meta_bytes)
    return Claim(
        partition=partition,
        entry_id=entry_id,
        id=MessageId(message_id),
        generation=generation,
        retried=retried,
        claims=claims,
        created_ms=_number(created),
        due_ms=_number(due),
        message=_decode_message(memoryview(record)[meta_at:body_at]),
        body=record[body_at:body_end],
        body_bytes=body_bytes,
        not_before_ms=_number(not_before),
    )


def fence_of(record: bytes) -> tuple[int, int]:
    """Generation and claims of a record whose message need not be readable."""
    _, _, _, claims, generation, *_ = _HEAD.unpack_from(record)
    return generation, claims


def body_range(record_head: bytes) -> tuple[int, int]:
    """First and last offset of the body in a record, from its first `HEAD_BYTES`."""
    head = _HEAD.unpack_from(record_head)
    _, body_at, body_end = _bounds(head, head[11])
    return body_at, body_end - 1


def decode_record(message_id: MessageId, record: bytes) -> StoredMessage:
    """A whole record. Raises `StorageError` for one that this release cannot read."""
    if len(record) < HEAD_BYTES or record[0] != RECORD_FORMAT:
        raise StorageError(f"The record of {message_id.hex()} has a format that this release cannot read.")
    head = _HEAD.unpack_from(record)
    _, state, flags, claims, generation, retried, due, created, not_before, lane_at, lane_bytes, meta_bytes, _ = head
    meta_at, body_at, body_end = _bounds(head, meta_bytes)
    lane_start = HEAD_BYTES + lane_at
    lane = record[lane_start : lane_start + lane_bytes].decode()
    last: AttemptRecord | None = None
    try:
        message = _decode_message(record[meta_at:body_at])
        for attempt in _attempts(record, body_end):
            last = attempt
    except msgspec.DecodeError as error:
        raise StorageError(f"The record of {message_id.hex()} cannot be read: {error}") from error
    return StoredMessage(
        id=message_id,
        message=message,
        body=record[body_at:body_end],
        lane=f"h:{lane}" if lane_at else lane,
        state=_STATES[state],
        cancel_requested=bool(flags & CANCEL_REQUESTED),
        generation=generation,
        claims=claims,
        retried=retried,
        created_ms=_number(created),
        not_before_ms=_number(not_before),
        due_ms=_number(due),
        last_attempt=last,
    )


def decode_attempts(record: bytes) -> list[AttemptRecord]:
    """The failed attempts of a record, in order: the entry `E` of the log with number n is the n-th."""
    head = _HEAD.unpack_from(record)
    return list(_attempts(record, _bounds(head, head[11])[2]))


def _attempts(record: bytes, offset: int) -> Iterator[AttemptRecord]:
    """Those that are whole: a record that was read in part may end within one."""
    while offset + _ATTEMPT_HEAD.size <= len(record):
        _, length = _ATTEMPT_HEAD.unpack_from(record, offset)
        offset += _ATTEMPT_HEAD.size
        if offset + length > len(record):
            return
        yield _decode_attempt(record[offset : offset + length])
        offset += length

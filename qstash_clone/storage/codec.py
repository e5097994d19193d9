"""Message records: a fixed binary head that scripts change in place, then lane, message and body, then attempts.

The layout is in `docs/reference/redis-keys.md` and, for the scripts, in `lua/include/record.lua`.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from qstash_clone.domain.message import AttemptRecord, Claim, Deduplication, Message, NewMessage, State, StoredMessage
from qstash_clone.errors import StorageError
from qstash_clone.ids import MessageId
from qstash_clone.storage.interface import DeduplicationRecord

STORAGE_VERSION: Final = 2
"""Of everything in Redis: keys, records, scripts. A process refuses a store of another version."""
OLDEST_READABLE_VERSION: Final = 1
"""Opening a store from this version on makes it one of this version, and processes of older releases refuse it from
then on. 1 knew neither queues nor flow-control keys: what it wrote is read as it is, but it would deliver their members
without their limits."""

RECORD_FORMAT: Final = 1
MAX_LANE_BYTES: Final = 600

_HEAD: Final = struct.Struct(">BBBBHH6s6s6sBH3sI")
HEAD_BYTES: Final = _HEAD.size
_ATTEMPT_HEAD: Final = struct.Struct(">6sI")
CANCEL_REQUESTED: Final = 1
_DEDUPLICATION_ID_BYTES: Final = 12
_WINDOW_BYTES: Final = 6
_LIMITS: Final = struct.Struct(">III")

_encode_message = msgspec.msgpack.Encoder().encode
_decode_message = msgspec.msgpack.Decoder(Message).decode
_decode_attempt = msgspec.msgpack.Decoder(AttemptRecord).decode
_decode_originals = msgspec.msgpack.Decoder(list[tuple[bytes, str]]).decode
_decode_told = msgspec.msgpack.Decoder(list[tuple[bytes, str]] | str).decode
_STATES = {ord(state.value): state for state in State}


def encode_message(message: Message) -> bytes:
    """The immutable part as publish.lua takes it."""
    return _encode_message(message)


def encode_attempt(attempt: AttemptRecord) -> bytes:
    """A failed attempt as settle.lua takes it."""
    return _encode_message(attempt)


def encode_deduplication(deduplication: Deduplication | None) -> bytes:
    """What identifies a repeat, as publish.lua takes it; empty for none."""
    return b"" if deduplication is None else deduplication.digest + deduplication.window_ms.to_bytes(6, "big")


def decode_deduplication(record: bytes) -> DeduplicationRecord:
    """A deduplication record as the scripts wrote it."""
    end = _DEDUPLICATION_ID_BYTES + _WINDOW_BYTES
    expires_ms = _number(record[_DEDUPLICATION_ID_BYTES:end])
    told = _decode_told(record[end:]) if len(record) > end else None
    if isinstance(told, str):
        return DeduplicationRecord(expires_ms=expires_ms, schedule_id=told)
    return DeduplicationRecord(expires_ms=expires_ms, message_id=MessageId(record[:_DEDUPLICATION_ID_BYTES]))


def encode_originals(messages: Sequence[NewMessage]) -> bytes:
    """What repeats of a fan-out are told, kept behind the deduplication record; nothing for a single message."""
    if len(messages) == 1:
        return b""
    return _encode_message([(message.id, message.message.url) for message in messages])


def decode_originals(told: bytes) -> tuple[tuple[MessageId, str], ...]:
    """The inverse of `encode_originals`."""
    return tuple((MessageId(message_id), url) for message_id, url in _decode_originals(told)) if told else ()


def encode_original_schedule(schedule_id: str) -> bytes:
    """What repeats of the creation of a schedule are told."""
    return _encode_message(schedule_id)


def decode_original_schedule(told: bytes) -> str:
    """The inverse of `encode_original_schedule`."""
    return msgspec.msgpack.decode(told, type=str)


def encode_limits(message: Message) -> bytes:
    """The limits a message brings for its flow-control key, as the scripts take them; empty for none."""
    flow_control = None if message.extras is None else message.extras.flow_control
    if flow_control is None:
        return b""
    return _LIMITS.pack(flow_control.parallelism or 0, flow_control.rate or 0, flow_control.period_s * 1000)


def find_lane(lane: bytes, encoded_message: bytes) -> int:
    """Offset of a host lane's host in the encoded message, or 0 if it does not stand there character for character.

    The destination comes first in the encoding, so its host is within the first bytes.
    """
    is_host_alone = lane.startswith(b"h:") and b" " not in lane
    at = encoded_message.find(lane[2:], 0, len(lane) + 12) if is_host_alone else -1
    return max(at, 0)


def _number(big_endian: bytes) -> int:
    return int.from_bytes(big_endian, "big")


def _bounds(head: tuple[int, ...], meta_bytes: bytes) -> tuple[int, int, int]:
    """Offsets of the encoded message, of the body, and of the attempts behind it."""
    *_, lane_at, lane_bytes, _, body_bytes = head
    meta_at = HEAD_BYTES + (0 if lane_at else lane_bytes)
    body_at = meta_at + _number(meta_bytes)
    return meta_at, body_at, body_at + body_bytes


def _lane_of(head: tuple[Any, ...], record: bytes) -> str:
    lane_at, lane_bytes = head[9], head[10]
    start = HEAD_BYTES + lane_at
    lane = record[start : start + lane_bytes].decode()
    return f"h:{lane}" if lane_at else lane


def decode_claim(partition: int, entry_id: bytes, message_id: bytes, record: bytes, start_within_ms: int) -> Claim:
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
        lane=_lane_of(head, record),
        start_within_ms=start_within_ms,
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
    _, state, flags, claims, generation, retried, due, created, not_before, _, _, meta_bytes, _ = head
    meta_at, body_at, body_end = _bounds(head, meta_bytes)
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
        lane=_lane_of(head, record),
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

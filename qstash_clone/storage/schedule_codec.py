"""Records of schedules: a fixed binary head that scripts change in place, then definition, body, and the last firing.

The layout is in `docs/reference/redis-keys.md` and, for the scripts, in `lua/include/schedule.lua`.
"""

import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from qstash_clone.domain.message import Message, NewMessage
from qstash_clone.domain.schedules import Firing, Schedule, StoredSchedule
from qstash_clone.errors import StorageError
from qstash_clone.ids import MessageId
from qstash_clone.storage.codec import encode_limits, encode_message
from qstash_clone.storage.commands import Argument
from qstash_clone.storage.publish_store import encode_lane

SCHEDULE_FORMAT: Final = 1
MAX_ERROR_BYTES: Final = 1_000

_HEAD: Final = struct.Struct(">BB6s6s6s3sH6s3sI")
HEAD_BYTES: Final = _HEAD.size
_PAUSED: Final = 1
_ID_BYTES: Final = 12


class _Definition(msgspec.Struct, frozen=True, array_like=True):
    """Stored as one array: a new field goes to the end and has a default, so that older records still decode."""

    cron: str
    message: Message
    delay_ms: int = 0
    queue: str | None = None
    has_timeout: bool = False
    creation: bytes = b""
    """The id of the reservation under which it was stored, if repeats of its creation are recognised."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Definition).decode


def encode_definition(schedule: Schedule, creation: bytes = b"") -> bytes:
    """The part of a record that never changes, but for the body; `creation_of` tells what `creation` was."""
    return _encode(
        _Definition(schedule.cron, schedule.message, schedule.delay_ms, schedule.queue, schedule.has_timeout, creation)
    )


def decode_schedule(schedule_id: str, record: bytes) -> StoredSchedule:
    """A whole record. Raises `StorageError` for one that this release cannot read."""
    _check_format(schedule_id, record)
    _, flags, revision, next_fire, last_fire, ids_bytes, error_bytes, created, definition_bytes, body_bytes = (
        _HEAD.unpack_from(record)
    )
    body_at = _HEAD.size + _number(definition_bytes)
    ids_at = body_at + body_bytes
    error_at = ids_at + _number(ids_bytes)
    definition = _decode_definition(schedule_id, record[_HEAD.size : body_at])
    try:
        error_text = record[error_at : error_at + error_bytes].decode()
    except UnicodeDecodeError as error:
        raise StorageError(f"The schedule {schedule_id} cannot be read: {error}") from error
    return StoredSchedule(
        schedule=Schedule(
            id=schedule_id,
            cron=definition.cron,
            message=definition.message,
            body=record[body_at:ids_at],
            delay_ms=definition.delay_ms,
            queue=definition.queue,
            has_timeout=definition.has_timeout,
        ),
        created_ms=_number(created),
        revision=_number(revision),
        is_paused=bool(flags & _PAUSED),
        next_fire_ms=_number(next_fire) or None,
        last_fire_ms=_number(last_fire) or None,
        last_message_ids=tuple(MessageId(record[at : at + _ID_BYTES]) for at in range(ids_at, error_at, _ID_BYTES)),
        error=error_text or None,
    )


def creation_of(schedule_id: str, record: bytes) -> bytes:
    """What `encode_definition` was given for it. Raises as `decode_schedule`."""
    _check_format(schedule_id, record)
    definition_bytes = _number(_HEAD.unpack_from(record)[8])
    return _decode_definition(schedule_id, record[_HEAD.size : _HEAD.size + definition_bytes]).creation


def _check_format(schedule_id: str, record: bytes) -> None:
    if len(record) < _HEAD.size or record[0] != SCHEDULE_FORMAT:
        raise StorageError(f"The schedule {schedule_id} has a format that this release cannot read.")


def _decode_definition(schedule_id: str, encoded: bytes) -> _Definition:
    try:
        return _decode(encoded)
    except msgspec.DecodeError as error:
        raise StorageError(f"The schedule {schedule_id} cannot be read: {error}") from error


def fence_of_schedule(record: bytes) -> tuple[int, int]:
    """Revision and next fire time of a record whose definition need not be readable."""
    _, _, revision, next_fire, *_ = _HEAD.unpack_from(record)
    return _number(revision), _number(next_fire)


def encode_firing(firing: Firing, stored_here: Sequence[NewMessage]) -> list[Argument]:
    """The arguments of fire_schedule.lua for one firing; `stored_here` are its messages or, if they are in the store
    already, none of them."""
    stored, messages = firing.stored, firing.messages
    error = (firing.error or "").encode()[:MAX_ERROR_BYTES].decode(errors="ignore")
    arguments: list[Argument] = [
        stored.schedule.id,
        stored.revision,
        stored.next_fire_ms or 0,
        0 if firing.is_too_late else firing.instant_ms,
        firing.next_fire_ms or 0,
        (messages[0].not_before_ms or 0) if messages else 0,
        encode_limits(messages[0].message) if messages else b"",
        error,
        b"".join(message.id for message in messages),
        len(stored_here),
    ]
    for message in stored_here:
        encoded = encode_message(message.message)
        arguments += (*encode_lane(message, encoded), encoded)
    return arguments


def _number(big_endian: bytes) -> int:
    return int.from_bytes(big_endian, "big")

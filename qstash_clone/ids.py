"""Message ids: 12 bytes inside Redis, `msg_` and 20 characters on the wire. And ids for schedules that have none.

The first 12 bits are a bucket (0 to 4095) that decides the partition, so any process finds a message without a
look-up and an id outlives a change of the number of partitions. The other 84 bits are random, or for a member of a
queue such that ids sort in the order in which they were made. The wire form is Crockford's base 32 in lower case, most
significant bits first: 20 characters are 100 bits, the first four zero.
"""

import os
import time
from typing import NewType

MessageId = NewType("MessageId", bytes)
"""12 bytes: 12 bits of bucket, 84 that make it unique."""

BUCKETS = 4096
_PREFIX = "msg_"
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_POOL_IDS = 256
"""Ids drawn from the system's generator at once: one call costs as much as encoding several ids."""
_ORDERED_BITS = 84
_OWN_BITS = 28


def format_message_id(message_id: MessageId) -> str:
    """The wire form, 24 characters."""
    number = int.from_bytes(message_id, "big")
    pairs = _PAIRS
    return (
        _PREFIX
        + pairs[number >> 90]
        + pairs[number >> 80 & 1023]
        + pairs[number >> 70 & 1023]
        + pairs[number >> 60 & 1023]
        + pairs[number >> 50 & 1023]
        + pairs[number >> 40 & 1023]
        + pairs[number >> 30 & 1023]
        + pairs[number >> 20 & 1023]
        + pairs[number >> 10 & 1023]
        + pairs[number & 1023]
    )


def parse_message_id(text: str) -> MessageId | None:
    """The id behind a wire form, or None if it is none: to a caller that is an id that does not exist."""
    if len(text) != 24 or not text.startswith(_PREFIX):
        return None
    number = 0
    for character in text[4:]:
        value = _VALUES.get(character)
        if value is None:
            return None
        number = number << 5 | value
    return MessageId(number.to_bytes(12, "big")) if number < 1 << 96 else None


def bucket_of(message_id: MessageId) -> int:
    """The bucket, 0 to 4095."""
    return message_id[0] << 4 | message_id[1] >> 4


def message_id_of(raw: bytes, first_bucket: int, bucket_count: int) -> MessageId:
    """The id that the first 12 bytes make, with their bucket moved into
    `first_bucket .. first_bucket + bucket_count - 1`."""
    if bucket_count == BUCKETS:
        return MessageId(raw[:12])
    bucket = first_bucket + (raw[0] << 4 | raw[1] >> 4) % bucket_count
    return MessageId(bytes((bucket >> 4, (bucket & 15) << 4 | raw[1] & 15)) + raw[2:12])


def new_schedule_id() -> str:
    """A random id for a schedule whose publisher names none: `scd_` and 26 characters."""
    number = int.from_bytes(os.urandom(16), "big")
    return "scd_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -5, -5))


class MessageIdGenerator:
    """Random ids in a range of buckets, drawn from the system's generator in pools, and ordered ones in one bucket."""

    def __init__(self) -> None:
        self._pool = b""
        self._offset = 0
        self._last_us = 0
        # Two generators make the same ordered id only if this is the same, and the microsecond too.
        self._own = int.from_bytes(os.urandom(4), "big") >> 32 - _OWN_BITS

    def next_id(self, first_bucket: int = 0, bucket_count: int = BUCKETS) -> MessageId:
        """A fresh id whose bucket lies in `first_bucket .. first_bucket + bucket_count - 1`."""
        if self._offset >= len(self._pool):
            self._pool = os.urandom(12 * _POOL_IDS)
            self._offset = 0
        raw = self._pool[self._offset : self._offset + 12]
        self._offset += 12
        return message_id_of(raw, first_bucket, bucket_count)

    def next_ordered_id(self, bucket: int) -> MessageId:
        """A fresh id in this bucket, greater than those made before; of several processes by their clocks."""
        self._last_us = max(self._last_us + 1, time.time_ns() // 1000)
        number = bucket << _ORDERED_BITS | self._last_us << _OWN_BITS | self._own
        return MessageId(number.to_bytes(12, "big"))

"""Which partition a record goes to, as Kafka's own producers decide it."""

import asyncio
from struct import Struct
from typing import Final

SLICE_BYTES: Final = 16_384
"""Hashed in one go: one or two milliseconds. A key of 1 MiB takes more than 100, and nobody else would be served."""

_SEED: Final = 0x9747B28C
_MULTIPLIER: Final = 0x5BD1E995
_SHIFT: Final = 24
_MASK: Final = 0xFFFFFFFF
_WORD: Final = Struct("<I")
_WORD_BYTES: Final = 4


def murmur2(data: bytes) -> int:
    """Kafka's hash of a key, 0 to 2^32 - 1; Java shows the same bits as a signed number."""
    whole = len(data) - len(data) % _WORD_BYTES
    return _end(_mix(_SEED ^ len(data), data[:whole]), data[whole:])


async def partition_of_key(key: bytes, partitions: int) -> int:
    """The partition of all records with this key, while the topic has so many. Others have their turn meanwhile."""
    if len(key) <= SLICE_BYTES:
        value = murmur2(key)
    else:
        whole = len(key) - len(key) % _WORD_BYTES
        value = _SEED ^ len(key)
        for begin in range(0, whole, SLICE_BYTES):
            value = _mix(value, key[begin : min(begin + SLICE_BYTES, whole)])
            await asyncio.sleep(0)
        value = _end(value, key[whole:])
    return (value & 0x7FFFFFFF) % partitions


def _mix(value: int, words: bytes) -> int:
    for (given,) in _WORD.iter_unpack(words):
        word = given * _MULTIPLIER & _MASK
        value = (value * _MULTIPLIER ^ (word ^ word >> _SHIFT) * _MULTIPLIER) & _MASK
    return value


def _end(value: int, tail: bytes) -> int:
    if tail:
        value = (value ^ int.from_bytes(tail, "little")) * _MULTIPLIER & _MASK
    value = (value ^ value >> 13) * _MULTIPLIER & _MASK
    return value ^ value >> 15

"""Which partition a record goes to, as Kafka's own producers decide it."""

from struct import Struct
from typing import Final

_SEED: Final = 0x9747B28C
_MULTIPLIER: Final = 0x5BD1E995
_SHIFT: Final = 24
_MASK: Final = 0xFFFFFFFF
_WORD: Final = Struct("<I")


def murmur2(data: bytes) -> int:
    """Kafka's hash of a key, 0 to 2^32 - 1; Java shows the same bits as a signed number."""
    length = len(data)
    whole = length & ~3
    value = _SEED ^ length
    for (given,) in _WORD.iter_unpack(data[:whole]):
        word = given * _MULTIPLIER & _MASK
        word = (word ^ word >> _SHIFT) * _MULTIPLIER & _MASK
        value = value * _MULTIPLIER & _MASK ^ word
    if whole < length:
        value = (value ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    value = (value ^ value >> 13) * _MULTIPLIER & _MASK
    return value ^ value >> 15


def partition_of_key(key: bytes, partitions: int) -> int:
    """The partition of all records with this key, while the topic has so many."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions

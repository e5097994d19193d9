"""Partitions: which one an id belongs to, and the hash tag that keeps one partition on one Redis slot."""

import hashlib
from binascii import crc_hqx
from functools import lru_cache

from qstash_clone.ids import BUCKETS, MessageId, bucket_of

MAX_PARTITIONS = 256
_SLOTS = 16384


def partition_of(message_id: MessageId, partitions: int) -> int:
    """The partition that holds this message, from 0."""
    return bucket_of(message_id) * partitions // BUCKETS


def lane_bucket(lane: str) -> int:
    """The bucket of a lane with limits of its own, `q:<queue>` or `f:<key>`.

    It never changes, so like an id it outlives a change of the number of partitions.
    """
    return bucket_of(MessageId(hashlib.sha256(lane.encode()).digest()))


def lane_partition(lane: str, partitions: int) -> int:
    """The partition of such a lane, and of all its messages."""
    return lane_bucket(lane) * partitions // BUCKETS


def buckets_of(partition: int, partitions: int) -> tuple[int, int]:
    """First bucket and number of buckets of a partition; the inverse of `partition_of`."""
    first = -(-partition * BUCKETS // partitions)
    end = -(-(partition + 1) * BUCKETS // partitions)
    return first, end - first


@lru_cache(maxsize=MAX_PARTITIONS)
def hash_tag(namespace: str, partition: int, partitions: int) -> str:
    """`{<namespace>:<partition><suffix>}`, the first part of every key of the partition.

    A cluster gives each master a contiguous range of slots. The suffix is the first that moves the tag into the
    partition's own share of all slots, so that partitions divide evenly over masters; alone, a partition needs none.
    """
    if partitions == 1:
        return f"{{{namespace}:0}}"
    first, end = partition * _SLOTS // partitions, (partition + 1) * _SLOTS // partitions
    candidate = 0
    while True:
        suffix = "" if candidate == 0 else f".{candidate}"
        tag = f"{namespace}:{partition}{suffix}"
        if first <= crc_hqx(tag.encode(), 0) % _SLOTS < end:
            return f"{{{tag}}}"
        candidate += 1

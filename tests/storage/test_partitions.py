"""Partitions: every id has one, tags spread evenly over the slots of a cluster, and each holds its own ids."""

import os
from binascii import crc_hqx

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.ids import BUCKETS, MessageId, MessageIdGenerator, bucket_of
from qstash_clone.storage.keys import PartitionKeys, store_key
from qstash_clone.storage.partitions import MAX_PARTITIONS, buckets_of, hash_tag, lane_partition, partition_of

COUNTS = [1, 2, 3, 5, 7, 8, 16, 100, MAX_PARTITIONS]
SLOTS = 16384


def slot_of(key: bytes) -> int:
    """As Redis Cluster computes it."""
    start = key.index(b"{")
    return crc_hqx(key[start + 1 : key.index(b"}", start)], 0) % SLOTS


@given(st.binary(min_size=12, max_size=12), st.integers(1, MAX_PARTITIONS))
def test_every_id_has_one_partition_that_covers_its_bucket(raw: bytes, partitions: int) -> None:
    message_id = MessageId(raw)
    partition = partition_of(message_id, partitions)
    assert 0 <= partition < partitions
    first, count = buckets_of(partition, partitions)
    assert first <= bucket_of(message_id) < first + count


@given(st.text(), st.integers(1, MAX_PARTITIONS))
def test_every_lane_has_one_partition(lane: str, partitions: int) -> None:
    assert 0 <= lane_partition(lane, partitions) < partitions


def test_lanes_never_move() -> None:
    lanes = ["q:orders", "f:orders", "f:tenant 7", "f:\u00fc"]
    assert [lane_partition(lane, 4096) for lane in lanes] == [3502, 841, 4006, 3176]


def test_lanes_spread_over_all_partitions() -> None:
    assert {lane_partition(f"q:{number}", 16) for number in range(400)} == set(range(16))


@pytest.mark.parametrize("partitions", COUNTS)
def test_buckets_are_shared_without_gap_or_overlap(partitions: int) -> None:
    expected = 0
    for partition in range(partitions):
        first, count = buckets_of(partition, partitions)
        assert first == expected
        assert count in (BUCKETS // partitions, -(-BUCKETS // partitions))
        expected = first + count
    assert expected == BUCKETS


@pytest.mark.parametrize("partitions", COUNTS)
def test_fresh_ids_lie_in_the_wanted_partition(partitions: int) -> None:
    ids = MessageIdGenerator()
    for partition in range(0, partitions, max(1, partitions // 8)):
        for _ in range(50):
            assert partition_of(ids.next_id(*buckets_of(partition, partitions)), partitions) == partition


@pytest.mark.parametrize("namespace", ["q", "t1", "a-long-namespace-of-somebody"])
@pytest.mark.parametrize("partitions", COUNTS)
def test_each_share_of_the_slots_has_one_partition(namespace: str, partitions: int) -> None:
    slots = [slot_of(PartitionKeys(namespace, number, partitions).meta) for number in range(partitions)]
    if partitions > 1:
        assert [slot * partitions // SLOTS for slot in slots] == list(range(partitions))
    assert len({hash_tag(namespace, number, partitions) for number in range(partitions)}) == partitions


@pytest.mark.parametrize("masters", [2, 3, 4, 6])
def test_partitions_divide_evenly_over_masters(masters: int) -> None:
    """A new cluster gives each master one contiguous range of slots."""
    partitions = masters * 4
    slots = [slot_of(PartitionKeys("q", number, partitions).meta) for number in range(partitions)]
    held = [slot * masters // SLOTS for slot in slots]
    assert [held.count(master) for master in range(masters)] == [4] * masters


def test_all_keys_of_a_partition_share_its_slot() -> None:
    keys = PartitionKeys("q", 1, 3)
    names = [value for name, value in vars(keys).items() if name != "prefix"]
    assert len(names) == 18
    names += [keys.lane("h:{evil}.example"), keys.admitted("h:}{x"), keys.message(MessageId(os.urandom(12)))]
    names += [keys.deduplication(os.urandom(16)), keys.reservation(os.urandom(16)), keys.schedule("nightly")]
    names += [
        keys.topic_state("{x}", 0),
        keys.topic_stream("}{", 1),
        keys.topic_index("x", 2),
        keys.consumer_group("{g}"),
    ]
    names.append(keys.topic_note(b"{}", "x", 0))
    assert {slot_of(name) for name in names} == {slot_of(keys.meta)}
    assert len({*names, keys.meta}) == len(names), "and no two are the same"


def test_the_store_key_is_none_of_a_partition() -> None:
    for partitions in COUNTS:
        for partition in range(partitions):
            assert not store_key("q").startswith(PartitionKeys("q", partition, partitions).prefix)

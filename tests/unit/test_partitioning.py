"""Kafka's hash of keys, against the vectors of Kafka's own tests and of its clients."""

import asyncio

import pytest

from qstash_clone.topics.partitioning import SLICE_BYTES, murmur2, partition_of_key


@pytest.mark.parametrize(
    ("key", "signed", "of_3", "of_4", "of_12"),
    [
        (b"21", -973932308, 0, 0, 0),
        (b"foobar", -790332482, 0, 2, 6),
        (b"a-little-bit-long-string", -985981536, 2, 0, 8),
        (b"a-little-bit-longer-string", -1486304829, 2, 3, 11),
        (b"abc", 479470107, 0, 3, 3),
        (b"city", -153862537, 1, 3, 7),
        (b"k0", -704538303, 2, 1, 5),
        (b"k1", 1684045097, 2, 1, 5),
        ("İstanbul".encode(), 1764130002, 0, 2, 6),
        (b"", 275646681, 0, 1, 9),
        (b"\x00\xff", -190448095, 1, 1, 1),
    ],
)
async def test_keys_go_where_kafka_puts_them(key: bytes, signed: int, of_3: int, of_4: int, of_12: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF
    assert [await partition_of_key(key, count) for count in (3, 4, 12)] == [of_3, of_4, of_12]


@pytest.mark.parametrize("more", [-1, 0, 1, 4, 7, SLICE_BYTES, 5 * SLICE_BYTES + 2])
async def test_a_long_key_is_hashed_in_slices_to_the_same(more: int) -> None:
    key = bytes(number * 7 % 251 for number in range(SLICE_BYTES + more))
    assert await partition_of_key(key, 1 << 31) == murmur2(key) & 0x7FFFFFFF


async def test_others_have_their_turn_while_a_long_key_is_hashed() -> None:
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(take_turns())
    await partition_of_key(bytes(1 << 20), 4)
    others.cancel()
    assert turns >= (1 << 20) / SLICE_BYTES

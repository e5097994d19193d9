"""Kafka's hash of keys, against the vectors of Kafka's own tests and of its clients."""

import pytest

from qstash_clone.topics.partitioning import murmur2, partition_of_key


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
def test_keys_go_where_kafka_puts_them(key: bytes, signed: int, of_3: int, of_4: int, of_12: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF
    assert [partition_of_key(key, count) for count in (3, 4, 12)] == [of_3, of_4, of_12]

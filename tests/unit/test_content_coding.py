"""Compressed bodies: what they unpack to, and that nothing more than the limit is unpacked."""

import gzip
import tracemalloc

import pytest

from qstash_clone.api.requests import Head
from qstash_clone.api.topics.content_coding import decode_content
from qstash_clone.errors import BodyTooLarge, InvalidRequest

BODY = b'{"value":"a"}'


def unpack(body: bytes, coding: bytes | None = b"gzip", limit_bytes: int = 1000) -> bytes:
    first = {} if coding is None else {b"content-encoding": coding}
    return decode_content(Head("POST", b"/produce", b"", [], first, "", b"1"), body, limit_bytes)


@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b" x-gzip "])
def test_gzip(coding: bytes) -> None:
    assert unpack(gzip.compress(BODY), coding) == BODY


@pytest.mark.parametrize("coding", [None, b"", b"identity"])
def test_what_was_not_compressed(coding: bytes | None) -> None:
    assert unpack(BODY, coding) == BODY


@pytest.mark.parametrize("coding", [b"br", b"deflate", b"gzip, gzip"])
def test_other_codings_are_refused(coding: bytes) -> None:
    with pytest.raises(InvalidRequest, match="content-encoding"):
        unpack(BODY, coding)


@pytest.mark.parametrize(
    "body",
    [b"", BODY, gzip.compress(BODY)[:-1], gzip.compress(BODY) + b"x", gzip.compress(BODY) * 2],
    # What is compressed holds the time, and every process of a test run must give tests the same names.
    ids=["empty", "plain", "cut", "with more", "two"],
)
def test_what_is_no_gzip_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="gzip"):
        unpack(body)


def test_the_limit_holds_for_what_was_unpacked() -> None:
    assert len(unpack(gzip.compress(b"a" * 1000))) == 1000
    with pytest.raises(BodyTooLarge, match="1000 bytes"):
        unpack(gzip.compress(b"a" * 1001))


def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            unpack(bomb)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()

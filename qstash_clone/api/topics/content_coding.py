"""Bodies that were compressed for the way."""

import zlib
from typing import Final

from qstash_clone.api.requests import Head
from qstash_clone.errors import BodyTooLarge, InvalidRequest

_GZIP: Final = 16 + zlib.MAX_WBITS


def decode_content(head: Head, body: bytes, limit_bytes: int) -> bytes:
    """The body as it was before `Content-Encoding`. However little a bomb weighs, no more than the limit is unpacked.

    Raises `BodyTooLarge`, and `InvalidRequest` for another coding than gzip and for what is not in it.
    """
    coding = head.first.get(b"content-encoding")
    if coding is None:
        return body
    match coding.strip().lower():
        case b"identity" | b"":
            return body
        case b"gzip" | b"x-gzip":
            return _unpack(body, limit_bytes)
        case _:
            raise InvalidRequest("content-encoding: only gzip is understood")


def _unpack(body: bytes, limit_bytes: int) -> bytes:
    unpacking = zlib.decompressobj(_GZIP)
    try:
        unpacked = unpacking.decompress(body, limit_bytes + 1)
    except zlib.error:
        raise InvalidRequest("the body is not in gzip's format") from None
    if len(unpacked) > limit_bytes:
        raise BodyTooLarge(f"the body is unpacked larger than the limit of {limit_bytes} bytes")
    if not unpacking.eof or unpacking.unused_data:
        raise InvalidRequest("the body is not one complete gzip stream")
    return unpacked

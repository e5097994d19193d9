"""Message bodies that name themselves and show whether they arrived whole."""

import zlib

BODY_BYTES = 200


def body_of(key: str) -> bytes:
    """`<key> <checksum> <padding>`, the padding made from the key."""
    padding = (f"{key}." * BODY_BYTES)[:BODY_BYTES].encode()
    return f"{key} {zlib.crc32(padding)} ".encode() + padding


def key_of(body: bytes) -> str | None:
    """The key of a body, or None if the body is not one that `body_of` made."""
    key = body.split(b" ", 1)[0].decode(errors="replace")
    return key if body == body_of(key) else None

"""The ways in which the Kafka REST APIs are told a token."""

import re
from base64 import b64decode
from binascii import Error as NotBase64
from typing import Final

from qstash_clone.errors import Unauthorized

_SCHEME: Final = re.compile(rb"(bearer|basic) *", re.IGNORECASE)


def read_authorization(header: bytes) -> tuple[str, bytes]:
    """`bearer` or `basic`, and what follows it after any number of blanks, none included.

    Raises `Unauthorized` for another scheme.
    """
    match = _SCHEME.match(header)
    if match is None:
        raise Unauthorized("unauthorized: the Authorization header has a scheme that is not known here")
    return match[1].lower().decode(), header[match.end() :].strip()


def password_of(encoded: bytes) -> bytes:
    """What follows the first colon; the user name may be in any encoding, and any. Raises `Unauthorized`."""
    try:
        decoded = b64decode(encoded.strip(), validate=True)
    except NotBase64:
        raise Unauthorized("unauthorized: what follows `Basic` is not base64") from None
    _user, colon, password = decoded.partition(b":")
    if not colon:
        raise Unauthorized("unauthorized: what follows `Basic` is not `user:password` in base64")
    return password

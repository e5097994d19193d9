"""Strict decoding of what the Kafka REST APIs take from paths and queries."""

import re
from urllib.parse import unquote_to_bytes

from qstash_clone.errors import InvalidRequest

_BROKEN = re.compile(r"%(?![0-9A-Fa-f]{2})")


def decode(raw: str, where: str) -> str:
    """Percent-decoded once. Raises `InvalidRequest`, naming the place, for broken sequences and what is not UTF-8."""
    if "%" not in raw:
        if raw.isascii():
            return raw
    elif _BROKEN.search(raw) is not None:
        raise InvalidRequest(f"{where}: a percent sign must be followed by two hexadecimal digits")
    try:
        return unquote_to_bytes(raw.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"{where}: not valid UTF-8 when percent-decoded") from None


def first_value(query: bytes, name: str) -> str | None:
    """The first value of a query parameter, decoded; None without it. Raises `InvalidRequest` as `decode`."""
    if not query:
        return None
    for parameter in query.decode("latin-1").split("&"):
        raw_name, _, raw_value = parameter.partition("=")
        if raw_name == name or ("%" in raw_name and unquote_to_bytes(raw_name) == name.encode()):
            return decode(raw_value.replace("+", " "), name)
    return None

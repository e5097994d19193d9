"""Header names and values: canonical spelling, what is legal, and what may be forwarded to a destination."""

import re
from collections.abc import Iterable
from functools import lru_cache

from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import InvalidRequest

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL_CHARACTER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CACHED_NAMES = 4096
_MAX_CACHED_NAME_BYTES = 64
"""Together with their number, bounds what callers can make the caches hold."""

_HOP_BY_HOP = frozenset(
    {b"connection", b"http2-settings", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_SET_BY_DELIVERY = frozenset({b"host", b"content-length", b"expect"})
_SERVICE_OWNED = frozenset(
    {
        b"upstash-signature",
        b"upstash-message-id",
        b"upstash-retried",
        b"upstash-caller-ip",
        b"upstash-schedule-id",
        b"upstash-topic-name",
        b"upstash-region",
    }
)
_NEVER_FORWARDED = _HOP_BY_HOP | _SET_BY_DELIVERY | _SERVICE_OWNED
_NEVER_FORWARDED_PREFIX = b"proxy-"

_OF_THE_PUBLISH = frozenset({b"user-agent", b"accept-encoding", b"forwarded", b"content-type"})
_OF_THE_PUBLISH_PREFIXES = (b"upstash-", b"x-forwarded-")


def canonical_name(name: bytes) -> str:
    """The stored spelling: upper case at the start and after each `-`, lower case elsewhere (`X-Api-Key`)."""
    return "-".join([part.capitalize() for part in name.decode("ascii").split("-")])


def is_header_name(name: bytes) -> bool:
    """Whether it may stand before the colon of a header line."""
    return _TOKEN.fullmatch(name) is not None


def forwardable_name(name: bytes) -> str | None:
    """The canonical name under which a publisher's `Upstash-Forward-<name>` is delivered.

    None for names that are never forwarded: those of the connection and its proxies, those that the delivery sets
    itself, and those by which the service vouches for a message. Raises `InvalidRequest` if it is no header name.
    """
    if len(name) <= _MAX_CACHED_NAME_BYTES:
        return _cached_forwardable_name(name)
    return _forwardable_name(name)


def _forwardable_name(name: bytes) -> str | None:
    if not is_header_name(name):
        raise InvalidRequest(f"Upstash-Forward-*: {quoted(name.decode('utf-8', 'replace'))} is not a header name")
    # Many receivers read underscores as hyphens, so both spellings are one name.
    plain = name.lower().replace(b"_", b"-")
    if plain in _NEVER_FORWARDED or plain.startswith(_NEVER_FORWARDED_PREFIX):
        return None
    return canonical_name(name)


_cached_forwardable_name = lru_cache(maxsize=_CACHED_NAMES)(_forwardable_name)


def incoming_name(name: bytes) -> str | None:
    """The canonical name under which `Upstash-Header-Forward` passes on a header of the publish itself.

    `name` is in lower case. None for what concerns the publish alone; `Authorization`, the content type and what
    `Connection` lists are up to the caller.
    """
    if name in _OF_THE_PUBLISH or name.startswith(_OF_THE_PUBLISH_PREFIXES):
        return None
    return forwardable_name(name)


def check_value(header: str, value: bytes) -> bytes:
    """The value without blanks around it, once nothing in it could end a header line.

    Raises `InvalidRequest`, without the value, for control characters other than the tab.
    """
    if _CONTROL_CHARACTER.search(value) is not None:
        raise InvalidRequest(f"{header}: the value contains a control character")
    return value.strip(b" \t")


def header_map(headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Header lines as JSON shows them, `{"Name": ["value", ...]}`; a value that is not UTF-8 is read as latin-1."""
    lines: dict[str, list[str]] = {}
    for name, value in headers:
        lines.setdefault(name, []).append(_text(value))
    return lines


def _text(value: str) -> str:
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value

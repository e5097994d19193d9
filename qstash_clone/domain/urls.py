"""The one URL parser: what may be called, and where it leads.

Whatever needs the host of a URL asks here, so that the check of a destination and the delivery to it cannot
disagree about it. Therefore it accepts less than the standards do, and never repairs anything.
"""

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import msgspec

from qstash_clone.domain.quoting import quoted

MAX_URL_CHARACTERS = 16_384

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"https?://", re.IGNORECASE | re.ASCII)
_AUTHORITY = r"[a-zA-Z0-9_.\-\[\]:]+"
_REST = r"[/?][!$-;=?-\[\]-~]*"
"""Visible ASCII without `#`, `\\`, `"`, `<` and `>`: goes on the wire as it is and means the same to every parser."""
_URL = re.compile(rf"([hH][tT][tT][pP][sS]?://{_AUTHORITY})(?:{_REST})?")
_REFUSED_CHARACTER = re.compile(r"[^!#-;=?-\[\]-~]")
_ORIGIN = re.compile(r"(https?)://(?:([^:\[\]]+)|\[([0-9a-f:.]+)\])(?::([1-9][0-9]{0,4}))?")
_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
_MAX_NAME_CHARACTERS = 253
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
"""Some parsers read such a host (`2130706433`, `127.1`, `0x7f.0.0.1`) as an IPv4 address, others as a name."""


class Origin(msgspec.Struct, frozen=True):
    """Where a URL leads: the part of it that decides which host is dialled."""

    scheme: str
    """`http` or `https`."""
    host: str
    """Lower case, without a trailing dot; an IPv6 address without brackets, in its shortest form."""
    port: int
    address: IPv4Address | IPv6Address | None
    """Set if the host is a literal address."""

    @property
    def has_default_port(self) -> bool:
        return _DEFAULT_PORTS[self.scheme] == self.port


def has_http_scheme(text: str) -> bool:
    """Whether the text starts with `http://` or `https://`, in any case."""
    return _SCHEME.match(text) is not None


def origin_of(url: str) -> Origin:
    """Check an absolute http(s) URL and return where it leads; see docs/protocol/destinations.md.

    An accepted URL is visible ASCII without quotes and backslashes: it needs no escapes in JSON.
    Raises `ValueError` whose text says what is wrong with it, made to follow `invalid destination url: `.
    """
    match = _URL.fullmatch(url)
    if match is None or len(url) > MAX_URL_CHARACTERS:
        raise ValueError(_explain(url))
    return _parse_origin(match[1])


@lru_cache(maxsize=4096)
def _parse_origin(text: str) -> Origin:
    match = _ORIGIN.fullmatch(text.lower())
    if match is None or (match[4] and int(match[4]) > 65_535):
        raise ValueError(f"invalid host or port {_quoted_authority(text)}")
    scheme, name, bracketed, digits = match.groups()
    port = int(digits) if digits else _DEFAULT_PORTS[scheme]
    try:
        if bracketed is not None:
            address = IPv6Address(bracketed)
            return Origin(scheme, str(address), port, address)
        if _ENDS_IN_NUMBER.fullmatch(name) is not None:
            # Raises for every spelling but the plain dotted one, a trailing dot included.
            return Origin(scheme, name, port, IPv4Address(name))
    except AddressValueError:
        raise ValueError(f"invalid address {_quoted_authority(text)}") from None
    if _NAME.fullmatch(name) is None or len(name) > _MAX_NAME_CHARACTERS:
        raise ValueError(f"invalid host {_quoted_authority(text)}")
    return Origin(scheme, name.removesuffix("."), port, None)


def _quoted_authority(origin: str) -> str:
    return quoted(origin.split("://", 1)[1])


def _explain(url: str) -> str:
    scheme = _SCHEME.match(url)
    if scheme is None:
        return "endpoint has invalid scheme, add http:// or https://"
    if len(url) > MAX_URL_CHARACTERS:
        return f"it has more than {MAX_URL_CHARACTERS} characters"
    authority = re.split(r"[/?#]", url[scheme.end() :], maxsplit=1)[0]
    if not authority:
        return "the host is empty"
    if "@" in authority:
        # The text does not repeat it: this is where passwords are.
        return "a user before the host is not supported, forward an Authorization header"
    refused = _REFUSED_CHARACTER.search(url)
    if refused is not None:
        return f"the character {quoted(refused[0])} must be percent-encoded"
    if "#" in url:
        return "a fragment (#) is never sent, remove it"
    return f"invalid host or port {quoted(authority)}"

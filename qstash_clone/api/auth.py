"""Who is calling: the bearer token, and the address a message's `callerIP` reports."""

import hmac
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import unquote_to_bytes

from qstash_clone.api.requests import Head
from qstash_clone.errors import Unauthorized


class Authenticator:
    """Knows the token and tells whether a request carries it; see docs/protocol/transport.md."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def check(self, head: Head) -> bool:
        """Let a request with the right token pass; raises Unauthorized for any other.

        Returns whether the credential came by the query, which makes the `Authorization` header payload.
        """
        if head.query:
            given = _query_token(head.query)
            if given is not None:
                if not hmac.compare_digest(given, self._token):
                    raise Unauthorized("unauthorized: the qstash_token in the query is not valid")
                return True
        header = head.first.get(b"authorization")
        if header is None:
            raise Unauthorized("unauthorized: send the token as `Authorization: Bearer <token>`")
        if header[:7].lower() != b"bearer " or not hmac.compare_digest(header[7:].strip(), self._token):
            raise Unauthorized("unauthorized: the token in the Authorization header is not valid")
        return False


def _query_token(query: bytes) -> bytes | None:
    if b"%" not in query and b"qstash_token" not in query.lower():
        return None
    for parameter in query.split(b"&"):
        name, _, value = parameter.partition(b"=")
        if unquote_to_bytes(name).lower() == b"qstash_token":
            return unquote_to_bytes(value)
    return None


class CallerAddress:
    """Tells the address of the publisher, also behind proxies that are trusted to report it."""

    def __init__(self, trusted_proxies: Sequence[str]) -> None:
        self._trusted = [ip_network(proxy, strict=False) for proxy in trusted_proxies]

    def of(self, head: Head) -> str:
        """The connection's other end, or, while that is a trusted proxy, whom it says it acts for."""
        if not self._trusted:
            return _plain(head.client)
        address = _plain(head.client)
        forwarded = b",".join(value for name, value in head.headers if name == b"x-forwarded-for")
        for hop in reversed(forwarded.decode("latin-1").split(",") if forwarded else ()):
            if not self._is_trusted(address):
                break
            named = _parse_hop(hop.strip())
            if named is None:
                break
            address = named
        return address

    def _is_trusted(self, address: str) -> bool:
        return _is_within(address, tuple(self._trusted))


def _parse_hop(text: str) -> str | None:
    """One element of `X-Forwarded-For`, which some proxies write with a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return _plain(str(ip_address(text)))
    except ValueError:
        return None


def _plain(address: str) -> str:
    """An IPv4 address that came over an IPv6 socket in its usual form."""
    if address.startswith("::ffff:"):
        mapped = IPv6Address(address).ipv4_mapped
        if mapped is not None:
            return str(mapped)
    return address


@lru_cache(maxsize=1024)
def _is_within(address: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False  # A unix socket's peer has no address.
    return any(parsed in network for network in networks)

"""Who is calling: the bearer token and what it allows, and the address a message's `callerIP` reports."""

import hmac
from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import unquote_to_bytes

from qstash_clone.api.requests import Head
from qstash_clone.errors import Forbidden, Unauthorized
from qstash_clone.settings import Settings


class _Role(Enum):
    """What a token may do."""

    FULL = "full"
    PUBLISH_ONLY = "publish-only"
    READ_ONLY = "read-only"


class Authenticator:
    """Knows the tokens and tells what a request may do; see docs/protocol/transport.md."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = [
            (token.encode(), role)
            for tokens, role in (
                (settings.full_tokens, _Role.FULL),
                (settings.publish_only_tokens, _Role.PUBLISH_ONLY),
                (settings.read_only_tokens, _Role.READ_ONLY),
            )
            for token in tokens
        ]

    def check(self, head: Head, *, publishes: bool) -> bool:
        """Let a request pass if its token allows it; `publishes` says that it is a publish, enqueue or batch.

        Returns whether the credential came by the query, which makes the `Authorization` header payload. Raises
        `Unauthorized` for a missing or unknown token and `Forbidden` for one that may not do this.
        """
        given = _query_token(head.query) if head.query else None
        role = self._role_of_header(head) if given is None else self._role_of(given, "qstash_token in the query")
        if role is not _Role.FULL:
            _check_role(role, head.method, publishes=publishes)
        return given is not None

    def _role_of_header(self, head: Head) -> _Role:
        header = head.first.get(b"authorization")
        if header is None:
            raise Unauthorized("unauthorized: send the token as `Authorization: Bearer <token>`")
        if header[:7].lower() != b"bearer ":
            raise Unauthorized(_INVALID.format("token in the Authorization header"))
        return self._role_of(header[7:].strip(), "token in the Authorization header")

    def _role_of(self, given: bytes, where: str) -> _Role:
        # All are compared, so that the time tells nothing about which one it was.
        found = None
        for token, role in self._tokens:
            if hmac.compare_digest(given, token):
                found = role
        if found is None:
            raise Unauthorized(_INVALID.format(where))
        return found


_INVALID = "unauthorized: the {} is not valid"


def _check_role(role: _Role, method: str, *, publishes: bool) -> None:
    if role is _Role.READ_ONLY and method not in ("GET", "HEAD"):
        raise Forbidden(f"forbidden: the token is read-only, which does not allow {method}")
    if role is _Role.PUBLISH_ONLY and not (publishes and method == "POST"):
        raise Forbidden("forbidden: the token is publish-only, which allows to publish, enqueue and send batches only")


def token_came_by_query(head: Head) -> bool:
    """What `Authenticator.check` returns, for a request that it let pass."""
    return _query_token(head.query) is not None


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

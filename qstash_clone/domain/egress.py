"""Which network addresses a delivery may reach."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeAlias

from qstash_clone.domain.quoting import quoted
from qstash_clone.domain.urls import origin_of
from qstash_clone.errors import InvalidRequest

IPAddress: TypeAlias = IPv4Address | IPv6Address

# An own table: `ipaddress.is_global` changed its mind several times within Python 3.11 and 3.12.
BLOCKED_IPV4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carrier-grade NAT; some clouds keep their metadata here
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # metadata and agent address of a large cloud, in the middle of a public range
        "169.254.0.0/16",  # link-local, with the metadata address of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, with the metadata address of another cloud
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
GLOBAL_IPV6 = IPv6Network("2000::/3")
"""The only range with public hosts. Outside are the unspecified address, loopback, IPv4-mapped and -compatible (all
of ::/8), NAT64 (64:ff9b::/96), discard (100::/64), unique local (fc00::/7), link-local (fe80::/10), site local
(fec0::/10) and multicast (ff00::/8)."""
BLOCKED_IPV6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, with Teredo (2001::/32), benchmarks and ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: carries any IPv4 address
        "3fff::/20",  # documentation
    )
)
_ISATAP_MARKS = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""Third quarter of an address whose last quarter is an IPv4 address, whatever its prefix."""


def is_public(address: IPAddress) -> bool:
    """Whether this is an address of the public internet, by the table above."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in BLOCKED_IPV4)
    return (
        address in GLOBAL_IPV6
        and not any(address in network for network in BLOCKED_IPV6)
        and int(address) >> 32 & 0xFFFF_FFFF not in _ISATAP_MARKS
    )


class EgressPolicy:
    """Public addresses, and what an operator allowed besides; see docs/reference/egress.md.

    `allowed` holds networks (`10.1.0.0/16`), addresses and host names; a host name is allowed whatever it resolves
    to. Raises `ValueError` for an entry that is none of these. With `allow_private` everything is allowed.
    """

    def __init__(self, *, allow_private: bool = False, allowed: Iterable[str] = ()) -> None:
        self._allow_private = allow_private
        networks: list[IPv4Network | IPv6Network] = []
        hosts: set[str] = set()
        for entry in allowed:
            parsed = _parse_entry(entry.strip())
            if isinstance(parsed, str):
                hosts.add(parsed)
            else:
                networks.append(parsed)
        self._networks = tuple(networks)
        self._hosts = frozenset(hosts)

    def allows_address(self, address: IPAddress) -> bool:
        """Whether a connection to this address may be opened."""
        # A network holds no address of the other family: ::ffff:10.0.0.1 is not covered by 10.0.0.0/8.
        return self._allow_private or is_public(address) or any(address in network for network in self._networks)

    def allows_host(self, host: str) -> bool:
        """Whether this host (lower case, without a trailing dot) may be reached whatever its addresses are."""
        return host in self._hosts

    def check_literal(self, url: str, what: str = "destination url") -> None:
        """Raise `InvalidRequest` if the URL names an address that may not be reached, or is no destination.

        `what` is how the text of the error calls it.
        A host name passes: its addresses are only known, and checked, when a delivery connects.
        """
        try:
            address = origin_of(url).address
        except ValueError as error:
            raise InvalidRequest(f"invalid {what}: {error}") from None
        if address is not None and not self.allows_address(address):
            raise InvalidRequest(f'invalid {what}: address "{address}" is not allowed')


def _parse_entry(entry: str) -> IPv4Network | IPv6Network | str:
    try:
        return ip_network(entry, strict=False)
    except ValueError:
        pass
    try:
        origin = origin_of(f"http://{entry}/")
    except ValueError:
        origin = None
    if origin is None or not origin.has_default_port or origin.host != entry.lower().removesuffix("."):
        raise ValueError(f"{quoted(entry)} is neither a network, nor an address, nor a host name")
    return origin.host

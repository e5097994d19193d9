"""Addresses that an operator gives to hosts, in place of what a name server says."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from qstash_clone.domain.urls import Origin, origin_of


class HostOverride(NamedTuple):
    """One host and port, and where it is dialled."""

    host: str
    """Lower case, without a trailing dot, as `origin_of` tells it."""
    port: int
    address: IPv4Address | IPv6Address
    address_port: int


def parse_host_override(text: str) -> HostOverride:
    """Read `example.com:443=127.0.0.1:9443`. Raises `ValueError` for anything else."""
    name, _, target = text.partition("=")
    named, dialled = _with_port(name), _with_port(target)
    if named.address is not None or dialled.address is None:
        raise ValueError("an override leads from a host name to an address")
    return HostOverride(named.host, named.port, dialled.address, dialled.port)


def parse_host_overrides(texts: Iterable[str]) -> tuple[HostOverride, ...]:
    """Read several, of which no two are for the same host and port. Raises `ValueError` otherwise."""
    overrides = tuple(parse_host_override(text) for text in texts)
    if len({(override.host, override.port) for override in overrides}) < len(overrides):
        raise ValueError("a host and port can be overridden once")
    return overrides


def _with_port(text: str) -> Origin:
    origin = origin_of(f"http://{text}")
    # The port says whether http or https is meant, so it is never left to a default.
    if not text.endswith(f":{origin.port}"):
        raise ValueError("a host or an address is followed by a port")
    return origin

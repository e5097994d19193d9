"""Addresses given to hosts: what is read, and what is refused."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from qstash_clone.domain.host_overrides import HostOverride, parse_host_override, parse_host_overrides


@pytest.mark.parametrize(
    ("text", "override"),
    [
        ("example.com:443=127.0.0.1:9443", HostOverride("example.com", 443, IPv4Address("127.0.0.1"), 9443)),
        ("Example.COM.:80=10.0.0.1:80", HostOverride("example.com", 80, IPv4Address("10.0.0.1"), 80)),
        ("a:1=[::1]:65535", HostOverride("a", 1, IPv6Address("::1"), 65535)),
    ],
)
def test_a_host_and_its_address_are_read(text: str, override: HostOverride) -> None:
    assert parse_host_override(text) == override


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=",
        "example.com:443",
        "example.com=127.0.0.1:9443",
        "example.com:443=127.0.0.1",
        "example.com:443=[::80]",
        "example.com:443=other.example:443",
        "127.0.0.1:443=127.0.0.1:9443",
        "example.com:0=127.0.0.1:9443",
        "example.com:443=127.0.0.1:65536",
        "example.com:443=127.1:9443",
        "example.com:443/=127.0.0.1:9443",
        "https://example.com:443=127.0.0.1:9443",
        "example.com:443=127.0.0.1:9443=127.0.0.1:9443",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_host_override(text)


def test_a_host_and_port_has_one_address() -> None:
    assert len(parse_host_overrides(["a:80=127.0.0.1:1", "a:443=127.0.0.1:1", "b:80=127.0.0.1:1"])) == 3
    with pytest.raises(ValueError, match="once"):
        parse_host_overrides(["a:80=127.0.0.1:1", "A.:80=127.0.0.1:2"])

"""Addresses a delivery must not be talked into reaching."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.egress import BLOCKED_IPV4, BLOCKED_IPV6, EgressPolicy, is_public
from qstash_clone.errors import InvalidRequest

PUBLIC = EgressPolicy()

BLOCKED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:5ef5:79fb:0:0:0:1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "2606:4700::5efe:7f00:1",
    "2606:4700::200:5efe:a00:1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
ALLOWED = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700::1111",
    "2a00:1450::1",
    "3ffe:ffff::1",
]


@pytest.mark.parametrize("address", BLOCKED)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not PUBLIC.allows_address(ip_address(address))


@pytest.mark.parametrize("address", ALLOWED)
def test_public_addresses_are_allowed(address: str) -> None:
    assert PUBLIC.allows_address(ip_address(address))


@given(st.sampled_from([*BLOCKED_IPV4, *BLOCKED_IPV6]), st.integers(0))
def test_every_address_of_a_blocked_network_is_refused(network: IPv4Network | IPv6Network, offset: int) -> None:
    assert not is_public(network[offset % network.num_addresses])


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_in_disguise_is_refused(value: int) -> None:
    disguises = [
        IPv6Address(value),
        IPv6Address(0xFFFF << 32 | value),
        IPv6Address(0x64_FF9B << 96 | value),
        IPv6Address(0x2002 << 112 | value << 80),
        IPv6Address(0x2001_0000 << 96 | ~value & 0xFFFF_FFFF),
        IPv6Address(0x2606_4700 << 96 | 0x5EFE << 32 | value),
    ]
    assert not any(is_public(disguise) for disguise in disguises)


@given(st.integers(0, 2**32 - 1))
def test_nothing_is_public_that_the_standard_library_does_not_call_global(value: int) -> None:
    address = IPv4Address(value)
    assert address.is_global or not is_public(address)


def test_allow_private_allows_everything() -> None:
    policy = EgressPolicy(allow_private=True)
    assert all(policy.allows_address(ip_address(address)) for address in BLOCKED)


def test_allowed_networks_add_to_the_public_ones() -> None:
    policy = EgressPolicy(allowed=["10.1.2.3/16", " 192.168.7.7 ", "fd00:1::/32"])
    assert policy.allows_address(ip_address("10.1.255.1"))
    assert policy.allows_address(ip_address("192.168.7.7"))
    assert policy.allows_address(ip_address("fd00:1::5"))
    assert policy.allows_address(ip_address("1.1.1.1"))
    assert not policy.allows_address(ip_address("10.2.0.1"))
    assert not policy.allows_address(ip_address("192.168.7.8"))
    assert not policy.allows_address(ip_address("::ffff:10.1.0.1"))


def test_allowed_hosts_are_compared_without_case_and_trailing_dot() -> None:
    policy = EgressPolicy(allowed=["Hooks.Internal.", "db"])
    assert policy.allows_host("hooks.internal")
    assert policy.allows_host("db")
    assert not policy.allows_host("evil.hooks.internal")
    assert not PUBLIC.allows_host("hooks.internal")


@pytest.mark.parametrize("entry", ["", "10.0.0.0/33", "10.0.0", "http://a", "a b", "a/b", "a:80", "*.b", "[::1]", "a?"])
def test_an_entry_that_is_no_network_and_no_host_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="is neither a network, nor an address, nor a host name"):
        EgressPolicy(allowed=[entry])


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.0.0.1:8080",
        "[::1]",
        "[::1]:3000",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "169.254.169.254",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1.",
        "0",
        "[fe80::1%25eth0]",
        "[::1",
        "\uff11\uff12\uff17.0.0.1",
        "user@127.0.0.1",
        "127.0.0.1\\@example.com",
        "%31%32%37.0.0.1",
    ],
)
def test_no_spelling_of_a_blocked_literal_passes(host: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^invalid destination url: "):
        PUBLIC.check_literal(f"http://{host}/latest")


def test_the_refusal_names_the_address() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        PUBLIC.check_literal("http://[0:0::1]:80/")
    assert str(refusal.value) == 'invalid destination url: address "::1" is not allowed'


@pytest.mark.parametrize("url", ["https://example.com/", "http://8.8.8.8", "http://[2606:4700::1111]/", "http://db:1"])
def test_names_and_public_literals_pass(url: str) -> None:
    PUBLIC.check_literal(url)


def test_an_allowed_literal_passes() -> None:
    EgressPolicy(allowed=["127.0.0.0/8"]).check_literal("http://127.0.0.1:9/")
    EgressPolicy(allow_private=True).check_literal("http://[::1]/")

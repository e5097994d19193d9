"""Whose address `callerIP` reports."""

import pytest

from qstash_clone.api.auth import CallerAddress
from qstash_clone.api.requests import Head


def head(client: str, *forwarded: str) -> Head:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return Head("POST", b"/", b"", headers, dict(headers), client, b"1")


@pytest.mark.parametrize(
    ("trusted", "client", "forwarded", "caller"),
    [
        ([], "198.51.100.1", ["203.0.113.9"], "198.51.100.1"),
        ([], "::ffff:198.51.100.1", [], "198.51.100.1"),
        ([], "::ffff:1:2:3", [], "::ffff:1:2:3"),
        ([], "", [], ""),
        (["10.0.0.0/8"], "", ["203.0.113.9"], ""),
        (["10.0.0.0/8"], "198.51.100.1", ["203.0.113.9"], "198.51.100.1"),
        (["10.0.0.0/8"], "10.0.0.1", [], "10.0.0.1"),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        (["10.0.0.0/8"], "10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        (["10.0.0.0/8"], "10.0.0.1", ["1.1.1.1, 203.0.113.9, 10.2.3.4"], "203.0.113.9"),
        (["10.0.0.0/8"], "10.0.0.1", ["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        (["10.0.0.0/8"], "10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (["10.0.0.0/8"], "10.0.0.1", ["1.1.1.1, unknown"], "10.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        (["10.0.0.0/8", "fd00::/8"], "fd00::1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        (["10.0.0.7"], "10.0.0.7", ["2001:db8::1"], "2001:db8::1"),
    ],
)
def test_only_trusted_proxies_are_believed(trusted: list[str], client: str, forwarded: list[str], caller: str) -> None:
    assert CallerAddress(trusted).of(head(client, *forwarded)) == caller

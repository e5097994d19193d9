import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.header_names import (
    canonical_name,
    check_value,
    forwardable_name,
    header_map,
    incoming_name,
    is_header_name,
)
from qstash_clone.errors import InvalidRequest


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        (b"test-header", "Test-Header"),
        (b"X-API-key", "X-Api-Key"),
        (b"content-type", "Content-Type"),
        (b"etag", "Etag"),
        (b"x--y-", "X--Y-"),
        (b"2fa-code", "2fa-Code"),
        (b"x_api_key", "X_api_key"),
    ],
)
def test_canonical_names(name: bytes, canonical: str) -> None:
    assert canonical_name(name) == canonical
    assert canonical_name(canonical.encode()) == canonical


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "Keep-Alive",
        "Proxy-Authorization",
        "Proxy-Authenticate",
        "Proxy-Connection",
        "Proxy-Anything",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Transfer_Encoding",
        "Upgrade",
        "HTTP2-Settings",
        "Host",
        "Content-Length",
        "Content_Length",
        "Expect",
        "Upstash-Signature",
        "Upstash_Signature",
        "Upstash-Message-Id",
        "Upstash-Retried",
        "Upstash-Caller-Ip",
        "Upstash-Schedule-Id",
        "Upstash-Topic-Name",
        "Upstash-Region",
    ],
)
@pytest.mark.parametrize("spell", [str, str.lower, str.upper])
def test_names_that_are_never_forwarded(name: str, spell: type[str]) -> None:
    assert forwardable_name(spell(name).encode()) is None
    assert incoming_name(name.lower().encode()) is None


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "User-Agent",
        "Cookie",
        "X-Forwarded-For",
        "Accept-Encoding",
        "Upstash-Workflow-Init",
        "Upstash-Retries",
        "Hosts",
        "Tea",
        "X" * 200,
    ],
)
def test_other_names_may_be_forwarded_on_request(name: str) -> None:
    assert forwardable_name(name.lower().encode()) == canonical_name(name.encode())


@pytest.mark.parametrize(
    "name",
    ["user-agent", "accept-encoding", "content-type", "forwarded", "x-forwarded-for", "x-forwarded-x", "upstash-any"],
)
def test_what_concerns_the_publish_alone_is_not_passed_on(name: str) -> None:
    assert incoming_name(name.encode()) is None


@pytest.mark.parametrize("name", ["authorization", "cookie", "accept", "x-custom", "x-forwarder"])
def test_other_incoming_headers_are_passed_on(name: str) -> None:
    assert incoming_name(name.encode()) == canonical_name(name.encode())


@pytest.mark.parametrize(
    "name", [b"", b" ", b"a b", b"a:", b"a\r\nb", b"a\n", b"\x00", b"caf\xc3\xa9", b"(a)", b'"', b"a/b", b"@" * 99]
)
def test_what_is_no_header_name_is_refused(name: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"^Upstash-Forward-\*: \".*\" is not a header name$"):
        forwardable_name(name)


@pytest.mark.parametrize("value", [b"", b"a", b"a\tb", b"a, b", bytes(range(32, 127)), b"\x80\xff", "é".encode()])
def test_values_pass_unchanged_but_for_blanks_around_them(value: bytes) -> None:
    assert check_value("X", b" \t" + value + b"\t ") == value.strip(b" \t")


@given(st.sampled_from([byte for byte in [*range(32), 127] if byte != 9]), st.binary(), st.binary())
def test_control_characters_are_refused_without_showing_the_value(byte: int, before: bytes, after: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_value("Upstash-Forward-X", before + bytes([byte]) + after)
    assert str(caught.value) == "Upstash-Forward-X: the value contains a control character"


@pytest.mark.parametrize(("name", "is_one"), [(b"X-1", True), (b"a_b!", True), (b"", False), (b"a b", False)])
def test_header_names(name: bytes, is_one: bool) -> None:
    assert is_header_name(name) == is_one


def test_header_lines_as_a_map() -> None:
    lines = (("X", "1"), ("Y", "caf\xc3\xa9"), ("X", "2"), ("Z", "caf\xe9"))
    assert header_map(lines) == {"X": ["1", "2"], "Y": ["caf\xe9"], "Z": ["caf\xe9"]}
    assert header_map(()) == {}

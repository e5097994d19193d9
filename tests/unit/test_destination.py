import contextlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.destination import (
    Destination,
    GroupDestination,
    LlmDestination,
    PathDestination,
    UrlDestination,
    parse_batch_destination,
    parse_path_destination,
)
from qstash_clone.errors import InvalidRequest


def parse_target(target: str) -> PathDestination:
    """As the route does: the raw target after `/v2/publish/`, split at the first question mark."""
    rest, _, query = target.encode("latin-1").partition(b"?")
    return parse_path_destination(rest, query)


def url_of(destination: Destination) -> str:
    assert isinstance(destination, UrlDestination)
    return destination.url


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com?foo=bar", "https://example.com?foo=bar"),
        ("https://mock.httpstatus.io/200?sleep=30000", "https://mock.httpstatus.io/200?sleep=30000"),
        ("https://example.com/123/?asdasd=ooo", "https://example.com/123/?asdasd=ooo"),
        ("https://e.com/p?qstash_token=T", "https://e.com/p"),
        ("https://e.com/p?a=1&upstash-retries=3&b=2&qstash_token=T", "https://e.com/p?a=1&b=2"),
        ("https%3A%2F%2Fe.com%2Fp%3Fq%3D1", "https://e.com/p?q=1"),
        ("https%3A%2F%2Fe.com%2Fp%3Fq%3D1?x=2", "https://e.com/p?q=1&x=2"),
        ("https%3A%2F%2Fe.com%2Fp?x=2", "https://e.com/p?x=2"),
        ("https%3A%2F%2Fe.com%2Fp%3F?x=2", "https://e.com/p?x=2"),
        ("https%3A%2F%2Fe.com%2Fp%3Fa%26?x=2", "https://e.com/p?a&x=2"),
        ("https%3a//e.com/a%252Fb", "https://e.com/a%2Fb"),
        ("https://e.com//a//b/", "https://e.com//a//b/"),
        ("https://e.com/a/../b/./c", "https://e.com/a/../b/./c"),
        ("https://e.com/a%2Fb%20c", "https://e.com/a%2Fb%20c"),
        ("https://e.com/?r=https://f.com/?x%3D1&&y&=z", "https://e.com/?r=https://f.com/?x%3D1&&y&=z"),
        ("http://[::1]:3000/p", "http://[::1]:3000/p"),
        ("https:/e.com/p", "https://e.com/p"),
        ("http:/e.com/p?a=1", "http://e.com/p?a=1"),
        ("HTTPS:/E.com/p", "HTTPS://E.com/p"),
        ("HtTpS://E.com", "HtTpS://E.com"),
        ("https://e.com/pause", "https://e.com/pause"),
    ],
)
def test_url_is_taken_exactly_as_published(target: str, url: str) -> None:
    assert url_of(parse_target(target).destination) == url


@pytest.mark.parametrize(
    ("target", "destination"),
    [
        ("my-group?qstash_token=T", GroupDestination("my-group")),
        ("example.com", GroupDestination("example.com")),
        ("my%2Dgroup?x=1", GroupDestination("my-group")),
        ("A_z.9", GroupDestination("A_z.9")),
        ("g" * 256, GroupDestination("g" * 256)),
        ("api", GroupDestination("api")),
        ("api/llm", LlmDestination()),
        ("api%2Fllm", LlmDestination()),
    ],
)
def test_other_destinations_are_values_of_their_own(target: str, destination: Destination) -> None:
    assert parse_target(target).destination == destination


@pytest.mark.parametrize("target", ["", "?qstash_token=T", "?a=1"])
def test_empty_destination_is_refused(target: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^a non-empty destination must be provided$"):
        parse_target(target)


@pytest.mark.parametrize(
    "target",
    [
        "example.com/foo",
        "ftp://e.com",
        "ftp%3A%2F%2Fe.com",
        "https:/",
        "https:",
        "https%3A%2Fe.com",
        "https%253A%252F%252Fe.com",
        "//e.com",
        "api/email",
        "api/llm/",
        "API/LLM",
        "my group",
        "my%20group",
        "group%0A",
        "%00",
        "%",
        "%FF",
        "gr\xfcppe",
        "g" * 257,
        " https://e.com",
        "%20https://e.com",
        "javascript:alert(1)",
    ],
)
def test_neither_url_nor_group_name_is_refused(target: str) -> None:
    with pytest.raises(
        InvalidRequest, match=r"^invalid destination url: endpoint has invalid scheme, add http:// or https://$"
    ):
        parse_target(target)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("https://", "the host is empty"),
        ("https:///p", "the host is empty"),
        ("https://?qstash_token=T", "the host is empty"),
        ("https%3A%2F%2F", "the host is empty"),
        ("https%3A%2F%2Fe.com%2Fa%20b", 'the character " " must be percent-encoded'),
        ("https%3A%2F%2Fe.com%2Fcaf%C3%A9", 'the character "\u00e9" must be percent-encoded'),
        ("https%3A%2F%2Fe.com%2F%0D%0AX:%20y", 'the character "\ufffd" must be percent-encoded'),
        ("https%3A%2F%2Fe.com%2F%FF", 'the character "\ufffd" must be percent-encoded'),
        ("https://e.com/caf\xc3\xa9", 'the character "\u00e9" must be percent-encoded'),
        ("https://e.com/?q=\xff", 'the character "\ufffd" must be percent-encoded'),
        ("https://e.com/\x01", 'the character "\ufffd" must be percent-encoded'),
        ("https%3A%2F%2Fe.com%2F%23f", "a fragment (#) is never sent, remove it"),
        ("https://e.com\\@f.com", "a user before the host is not supported, forward an Authorization header"),
        ("https%3A%2F%2Fu:p@e.com", "a user before the host is not supported, forward an Authorization header"),
        ("https://e.com:99999/", 'invalid host or port "e.com:99999"'),
    ],
)
def test_malformed_url_is_refused_with_a_reason(target: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_target(target)
    assert str(caught.value) == f"invalid destination url: {reason}"


def test_query_parameters_for_the_service_become_configuration() -> None:
    parsed = parse_target(
        "https://e.com/p?Upstash-Delay=1h+30m&a=%41&upstash%2Dforward-X-Key=a%2Bb%26c&&UPSTASH-LABEL&upstash-x==1"
    )
    assert url_of(parsed.destination) == "https://e.com/p?a=%41&"
    assert parsed.config == (
        (b"upstash-delay", b"1h 30m"),
        (b"upstash-forward-x-key", b"a+b&c"),
        (b"upstash-label", b""),
        (b"upstash-x", b"=1"),
    )


@pytest.mark.parametrize(
    ("query", "token"),
    [
        ("", None),
        ("a=qstash_token", None),
        ("xqstash_token=T", None),
        ("qstash_token=T", b"T"),
        ("a=1&QSTASH_Token=T", b"T"),
        ("qstash%5Ftoken=T", b"T"),
        ("qstash_token=a%2Bb/c%3D=", b"a+b/c=="),
        ("qstash_token=a+b", b"a+b"),
        ("qstash_token=%FF%00", b"\xff\x00"),
        ("qstash_token=", b""),
        ("qstash_token", b""),
        ("qstash_token=first&qstash_token=second", b"first"),
    ],
)
def test_token_is_taken_out_of_the_query(query: str, token: bytes | None) -> None:
    parsed = parse_target(f"https://e.com/?{query}")
    assert parsed.token == token
    if token is not None:
        assert "token" not in url_of(parsed.destination).lower()


def test_configuration_and_token_are_found_for_every_kind_of_destination() -> None:
    parsed = parse_target("my-group?upstash-retries=1&qstash_token=T&x=1")
    assert parsed == PathDestination(GroupDestination("my-group"), ((b"upstash-retries", b"1"),), b"T")


_path = st.text(alphabet="abZ09/-._~:@!$&'()*+,;=%[]{}|^`", max_size=40)
_parameters = st.lists(
    st.text(alphabet="abu%=+/?-_.:1", max_size=12).filter(lambda text: "%" not in text), max_size=5
).map("&".join)


@given(_path, _parameters)
def test_raw_and_encoded_forms_name_the_same_url(path: str, query: str) -> None:
    url = f"https://e.com/{path}" + (f"?{query}" if query else "")
    raw = parse_target(url)
    assert url_of(raw.destination) == url
    assert parse_target(quote(url, safe="")) == raw


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_parsed_or_refused(rest: bytes, query: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        parse_path_destination(rest, query)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (
            "https://e.com/p?a=1&upstash-retries=3&qstash_token=T",
            "https://e.com/p?a=1&upstash-retries=3&qstash_token=T",
        ),
        ("https://e.com/a%2Fb%20c", "https://e.com/a%2Fb%20c"),
        ("https%3A%2F%2Fe.com%2Fp%3Fq%3D1", "https://e.com/p?q=1"),
        ("HTTP://e.com", "HTTP://e.com"),
    ],
)
def test_url_of_a_batch_item_is_taken_as_it_is(text: str, url: str) -> None:
    assert url_of(parse_batch_destination(text)) == url


def test_other_destinations_of_a_batch_item() -> None:
    assert parse_batch_destination("my-group") == GroupDestination("my-group")
    assert parse_batch_destination("my%2Dgroup") == GroupDestination("my-group")
    assert parse_batch_destination("api/llm") == LlmDestination()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "a non-empty destination must be provided"),
        ("e.com/p", "invalid destination url: endpoint has invalid scheme, add http:// or https://"),
        ("https:/e.com/p", "invalid destination url: endpoint has invalid scheme, add http:// or https://"),
        ("my-group?a=1", "invalid destination url: endpoint has invalid scheme, add http:// or https://"),
        ("https://", "invalid destination url: the host is empty"),
        ("https://e.com/\xe9", 'invalid destination url: the character "\xe9" must be percent-encoded'),
        ("\ud800", "invalid destination url: endpoint has invalid scheme, add http:// or https://"),
    ],
)
def test_what_is_no_destination_of_a_batch_item_is_refused(text: str, error: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_batch_destination(text)
    assert str(caught.value) == error

import contextlib
import json
import re
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from qstash_clone.domain.urls import MAX_URL_CHARACTERS, Origin, has_http_scheme, origin_of


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://example.com", Origin("https", "example.com", 443, None)),
        ("http://example.com", Origin("http", "example.com", 80, None)),
        ("HTTPS://Example.COM/Path?Q", Origin("https", "example.com", 443, None)),
        ("https://example.com:8443/", Origin("https", "example.com", 8443, None)),
        ("https://example.com.", Origin("https", "example.com", 443, None)),
        ("http://localhost:3000?x=1", Origin("http", "localhost", 3000, None)),
        ("http://my_service-1.internal", Origin("http", "my_service-1.internal", 80, None)),
        ("http://1.example", Origin("http", "1.example", 80, None)),
        ("http://xn--bcher-kva.example/", Origin("http", "xn--bcher-kva.example", 80, None)),
        ("http://127.0.0.1/", Origin("http", "127.0.0.1", 80, IPv4Address("127.0.0.1"))),
        ("http://[::1]:3000/p", Origin("http", "::1", 3000, IPv6Address("::1"))),
        ("http://[0:0::0:ABCD]", Origin("http", "::abcd", 80, IPv6Address("::abcd"))),
        ("https://e.com//a//b/../c;d=1/@user:x?q=https://f.com/?a=[]{}|^`'*$!", Origin("https", "e.com", 443, None)),
        ("https://" + "a." * 126 + "b", Origin("https", "a." * 126 + "b", 443, None)),
        ("https://e.com:65535", Origin("https", "e.com", 65535, None)),
    ],
)
def test_origin_is_where_the_url_leads(url: str, origin: Origin) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "endpoint has invalid scheme, add http:// or https://"),
        ("example.com", "endpoint has invalid scheme, add http:// or https://"),
        ("ftp://e.com", "endpoint has invalid scheme, add http:// or https://"),
        ("//e.com", "endpoint has invalid scheme, add http:// or https://"),
        ("https:/e.com", "endpoint has invalid scheme, add http:// or https://"),
        (" https://e.com", "endpoint has invalid scheme, add http:// or https://"),
        ("http\u017f://e.com", "endpoint has invalid scheme, add http:// or https://"),
        ("https://", "the host is empty"),
        ("https:///path", "the host is empty"),
        ("https://?q", "the host is empty"),
        ("https://#f", "the host is empty"),
        ("https://user@e.com/", "a user before the host is not supported, forward an Authorization header"),
        ("https://user:secret@e.com", "a user before the host is not supported, forward an Authorization header"),
        ("https://@e.com", "a user before the host is not supported, forward an Authorization header"),
        ("https://good.com\\@evil.com", "a user before the host is not supported, forward an Authorization header"),
        ("https://evil.com\\.good.com/", 'the character "\\" must be percent-encoded'),
        ("https://e.com/a b", 'the character " " must be percent-encoded'),
        ("https://e.com/\r\nX: y", 'the character "\ufffd" must be percent-encoded'),
        ('https://e.com/?q="x"', 'the character """ must be percent-encoded'),
        ("https://e.com/<b>", 'the character "<" must be percent-encoded'),
        ("https://e.com/?a>b", 'the character ">" must be percent-encoded'),
        ('https://"e.com/', 'the character """ must be percent-encoded'),
        ("https://e.com/\t", 'the character "\ufffd" must be percent-encoded'),
        ("https://e.com/\x7f", 'the character "\ufffd" must be percent-encoded'),
        ("https://e.com/\x00", 'the character "\ufffd" must be percent-encoded'),
        ("https://e.com/\n", 'the character "\ufffd" must be percent-encoded'),
        ("https://e.com/caf\u00e9", 'the character "\u00e9" must be percent-encoded'),
        ("https://b\u00fccher.example/", 'the character "\u00fc" must be percent-encoded'),
        ("https://e.com\uff0fevil.com/", 'the character "\uff0f" must be percent-encoded'),
        ("https://e.com/#frag", "a fragment (#) is never sent, remove it"),
        ("https://e.com#frag", "a fragment (#) is never sent, remove it"),
        ("https://e.com:", 'invalid host or port "e.com:"'),
        ("https://e.com:0", 'invalid host or port "e.com:0"'),
        ("https://e.com:080", 'invalid host or port "e.com:080"'),
        ("https://e.com:65536/", 'invalid host or port "e.com:65536"'),
        ("https://e.com:999999/", 'invalid host or port "e.com:999999"'),
        ("https://e.com:http/", 'invalid host or port "e.com:http"'),
        ("https://e.com:-1/", 'invalid host or port "e.com:-1"'),
        ("https://e.com:80:80/", 'invalid host or port "e.com:80:80"'),
        ("https://:80/", 'invalid host or port ":80"'),
        ("https://::1/", 'invalid host or port "::1"'),
        ("https://[::1/", 'invalid host or port "[::1"'),
        ("https://::1]/", 'invalid host or port "::1]"'),
        ("https://[]/", 'invalid host or port "[]"'),
        ("https://[::1]x/", 'invalid host or port "[::1]x"'),
        ("https://[::1][::2]/", 'invalid host or port "[::1][::2]"'),
        ("https://[fe80::1%eth0]/", 'invalid host or port "[fe80::1%eth0]"'),
        ("https://[fe80::1%25eth0]/", 'invalid host or port "[fe80::1%25eth0]"'),
        ("https://[v1.abc]/", 'invalid host or port "[v1.abc]"'),
        ("https://[127.0.0.1]/", 'invalid address "[127.0.0.1]"'),
        ("https://[1::2::3]/", 'invalid address "[1::2::3]"'),
        ("https://[::12345]/", 'invalid address "[::12345]"'),
        ("https://e%2ecom/", 'invalid host or port "e%2ecom"'),
        ("https://e.com%00/", 'invalid host or port "e.com%00"'),
        ("https://e,f.com/", 'invalid host or port "e,f.com"'),
        ("https://a..b/", 'invalid host "a..b"'),
        ("https://./", 'invalid host "."'),
        ("https://.e.com/", 'invalid host ".e.com"'),
        ("https://e.com../", 'invalid host "e.com.."'),
        ("https://" + "a" * 64 + ".com", 'invalid host "' + "a" * 64 + '.com"'),
        ("https://" + "a." * 127 + "b", 'invalid host "' + "a." * 50 + '"'),
        ("https://2130706433/", 'invalid address "2130706433"'),
        ("https://127.1/", 'invalid address "127.1"'),
        ("https://0x7f.0.0.1/", 'invalid address "0x7f.0.0.1"'),
        ("https://0x7f000001/", 'invalid address "0x7f000001"'),
        ("https://0177.0.0.1/", 'invalid address "0177.0.0.1"'),
        ("https://127.0.0.1./", 'invalid address "127.0.0.1."'),
        ("https://256.0.0.1/", 'invalid address "256.0.0.1"'),
        ("https://1.2.3.4.5/", 'invalid address "1.2.3.4.5"'),
        ("https://e.com.0x1/", 'invalid address "e.com.0x1"'),
        ("https://e.com/" + "a" * MAX_URL_CHARACTERS, f"it has more than {MAX_URL_CHARACTERS} characters"),
    ],
)
def test_refused_urls_say_why(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        origin_of(url)


def test_longest_url_is_accepted() -> None:
    url = "https://e.com/".ljust(MAX_URL_CHARACTERS, "a")
    assert origin_of(url).host == "e.com"


@pytest.mark.parametrize("text", ["http://", "https://e", "HTTPS://", "hTTp://x"])
def test_scheme_is_recognised_in_any_case(text: str) -> None:
    assert has_http_scheme(text)


@pytest.mark.parametrize("text", ["", "http:/", "http", "xhttp://", "ftp://", "http\u017f://"])
def test_other_schemes_are_not(text: str) -> None:
    assert not has_http_scheme(text)


_tricky = st.text(alphabet="aZ0.1:-_[]@%/\\?#&= xf\t\n\u00e9", max_size=25)


@given(st.sampled_from(["http://", "https://", "HTTP://"]), _tricky)
@example("http://", "[::ffff:127.0.0.1]:80/")
@example("http://", "a@b")
@example("http://", "1.2.3.4")
def test_other_parsers_agree_on_every_accepted_url(scheme: str, rest: str) -> None:
    url = scheme + rest
    try:
        origin = origin_of(url)
    except ValueError:
        return
    split = urlsplit(url)
    dialled = URL(url, encoded=True)
    for scheme_seen, host, port in [
        (split.scheme, split.hostname, split.port),
        (dialled.scheme, dialled.raw_host, dialled.explicit_port),
    ]:
        assert scheme_seen == origin.scheme
        assert port in (None, origin.port)
        assert (port is None) <= origin.has_default_port
        assert host is not None
        if origin.address is None:
            assert host.lower().removesuffix(".") == origin.host
        else:
            assert type(origin.address)(host) == origin.address
    path, _, query = re.sub(r"^[^/?]*", "", url[len(scheme) :]).partition("?")
    assert dialled.raw_path_qs == (path or "/") + (f"?{query}" if query else "")


@given(st.text(max_size=60))
def test_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert origin_of(text).port > 0


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=20))
def test_an_accepted_url_is_its_own_json(rest: str) -> None:
    url = f"https://e.com/{rest}"
    with contextlib.suppress(ValueError):
        origin_of(url)
        assert json.dumps(url) == f'"{url}"'

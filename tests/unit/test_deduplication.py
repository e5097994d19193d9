import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.deduplication import (
    ContentScope,
    DeduplicationRequest,
    check_id,
    content_headers,
    content_pieces,
    digest_of_content,
    digest_of_id,
)
from qstash_clone.errors import InvalidRequest

Line = tuple[bytes, bytes]
Content = tuple[str, str | None, tuple[Line, ...], bytes]

HEADERS = (
    (b"host", b"127.0.0.1"),
    (b"content-type", b"text/plain"),
    (b"upstash-retries", b"3"),
    (b"upstash-forward-x", b" 1 "),
    (b"upstash-delay", b"10s"),
    (b"upstash-forward-x", b"0"),
    (b"upstash-telemetry-sdk", b"py"),
    (b"upstash-content-based-deduplication", b"true"),
    (b"upstash-deduplication-window", b"1h"),
    (b"upstash-deduplication-id", b""),
    (b"x-other", b"1"),
)


def test_scope_of_all_upstash_headers() -> None:
    assert content_headers("all-upstash", HEADERS, ()) == (
        (b"upstash-delay", b"10s"),
        (b"upstash-forward-x", b"1"),
        (b"upstash-forward-x", b"0"),
        (b"upstash-retries", b"3"),
    )


def test_scope_of_what_is_forwarded() -> None:
    assert content_headers("forwarded", HEADERS, ()) == (
        (b"content-type", b"text/plain"),
        (b"upstash-forward-x", b"1"),
        (b"upstash-forward-x", b"0"),
    )


def test_a_query_parameter_counts_as_the_header_would() -> None:
    query = ((b"upstash-retries", b"5"), (b"upstash-label", b"a"), (b"upstash-telemetry-sdk", b"x"))
    by_query = content_headers("all-upstash", ((b"upstash-retries", b"3"),), query)
    by_header = content_headers("all-upstash", ((b"upstash-label", b"a"), (b"upstash-retries", b"3")), ())
    assert by_query == by_header


def test_request_by_id_wins_over_the_content() -> None:
    by_id = DeduplicationRequest(window_ms=1000, id="order-7", content_headers=((b"upstash-x", b"1"),))
    assert by_id.digest(destination="https://a", body=b"1") == digest_of_id("order-7")
    assert by_id.digest(destination="https://b", body=b"2", queue_name="q") == digest_of_id("order-7")


def test_request_by_content() -> None:
    request = DeduplicationRequest(window_ms=1000, scope="forwarded", content_headers=((b"upstash-forward-x", b"1"),))
    assert request.digest(destination="https://a", body=b"1", queue_name="q") == digest_of_content(
        scope="forwarded",
        destination="https://a",
        queue_name="q",
        headers=((b"upstash-forward-x", b"1"),),
        body=b"1",
    )


def test_digests_never_change() -> None:
    # They are in stores that outlive this release.
    assert digest_of_id("order-7").hex() == "bc1c5eafef3137372114271273693a84"
    content = digest_of_content(
        scope="all-upstash",
        destination="https://e.com/a",
        queue_name=None,
        headers=((b"upstash-retries", b"3"),),
        body=b"{}",
    )
    assert content.hex() == "d9a3d8d3bbf5a5b1819eaa5999fafc25"


def test_any_text_has_a_digest() -> None:
    assert len(digest_of_id("\udc80")) == 16


@pytest.mark.parametrize("text", ["a:b", "a b", "a\tb", "\xa0", "a\u2003b"])
def test_strict_ids_have_no_colons_or_blanks(text: str) -> None:
    check_id("Upstash-Deduplication-Id", text, strict=False)
    with pytest.raises(InvalidRequest) as caught:
        check_id("Upstash-Deduplication-Id", text, strict=True)
    assert str(caught.value).endswith("contains a colon or a blank")


@pytest.mark.parametrize("strict", [True, False])
def test_an_id_is_not_empty(strict: bool) -> None:
    check_id("Upstash-Deduplication-Id", "order-7/é", strict=strict)
    with pytest.raises(InvalidRequest, match=r"^Upstash-Deduplication-Id: the id is empty$"):
        check_id("Upstash-Deduplication-Id", "", strict=strict)


# Small alphabets, so that different contents whose joined bytes agree are actually met.
_words = st.text(alphabet="ab", max_size=2)
_lines = st.lists(st.tuples(_words.map(str.encode), _words.map(str.encode)), max_size=2).map(tuple)
_contents: st.SearchStrategy[Content] = st.tuples(
    _words, st.one_of(st.none(), st.text("ab", min_size=1, max_size=2)), _lines, _words.map(str.encode)
)
_scopes: st.SearchStrategy[ContentScope] = st.sampled_from(("all-upstash", "forwarded"))


def preimage(scope: ContentScope, content: Content) -> bytes:
    destination, queue_name, headers, body = content
    return b"".join(
        content_pieces(scope=scope, destination=destination, queue_name=queue_name, headers=headers, body=body)
    )


def read_back(hashed: bytes) -> tuple[str, Content]:
    values: list[bytes] = []
    while hashed:
        end = 8 + int.from_bytes(hashed[:8], "big")
        values.append(hashed[8:end])
        hashed = hashed[end:]
    scope, destination, queue_name, *lines, body = values
    pairs = tuple(zip(lines[::2], lines[1::2], strict=True))
    return scope.decode(), (destination.decode(), queue_name.decode() or None, pairs, body)


@given(_scopes, _contents)
def test_what_is_hashed_can_be_read_back(scope: ContentScope, content: Content) -> None:
    assert read_back(preimage(scope, content)) == (scope, content)


@given(_scopes, _contents, _scopes, _contents)
def test_different_contents_differ(scope: ContentScope, one: Content, other_scope: ContentScope, two: Content) -> None:
    same = (scope, one) == (other_scope, two)
    assert (preimage(scope, one) == preimage(other_scope, two)) == same


@given(st.text(), st.text())
def test_different_ids_differ(one: str, two: str) -> None:
    assert (digest_of_id(one) == digest_of_id(two)) == (one == two)


@given(st.permutations([(b"upstash-a", b"1"), (b"upstash-b", b"2"), (b"upstash-c", b"3")]))
def test_the_order_of_different_headers_does_not_matter(lines: list[Line]) -> None:
    assert content_headers("all-upstash", lines, ()) == tuple(sorted(lines))

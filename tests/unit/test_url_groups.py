import pytest

from qstash_clone.domain.url_groups import (
    Endpoint,
    EndpointPattern,
    UrlGroup,
    add_endpoints,
    remove_endpoints,
    replace_headers,
)
from qstash_clone.errors import QuotaExceeded

A, B, C = "https://a.example/", "https://b.example/", "https://c.example/"


def group(*endpoints: Endpoint) -> UrlGroup:
    return UrlGroup(name="g", created_ms=1_000, updated_ms=1_000, endpoints=endpoints)


def added(before: UrlGroup | None, *endpoints: Endpoint, max_endpoints: int = 100) -> UrlGroup:
    return add_endpoints("g", before, endpoints, 2_000, max_endpoints=max_endpoints)


def test_a_group_is_made_by_its_first_endpoint() -> None:
    made = added(None, Endpoint(url=A, name="first one"))
    assert made == UrlGroup(
        name="g", created_ms=2_000, updated_ms=2_000, endpoints=(Endpoint(url=A, name="first one"),)
    )


@pytest.mark.parametrize(
    ("before", "new", "after"),
    [
        pytest.param([Endpoint(url=A)], Endpoint(url=B), [Endpoint(url=A), Endpoint(url=B)], id="appended"),
        pytest.param([Endpoint(url=A)], Endpoint(url=A), [Endpoint(url=A)], id="known"),
        pytest.param([Endpoint(url=A)], Endpoint(url=A, name="x"), [Endpoint(url=A, name="x")], id="named"),
        pytest.param([Endpoint(url=A, name="x")], Endpoint(url=A), [Endpoint(url=A, name="x")], id="name kept"),
        pytest.param(
            [Endpoint(url=A, name="x"), Endpoint(url=B)],
            Endpoint(url=A, name="y"),
            [Endpoint(url=A, name="y"), Endpoint(url=B)],
            id="renamed",
        ),
        pytest.param(
            [Endpoint(url=A, name="x"), Endpoint(url=B)],
            Endpoint(url=C, name="x"),
            [Endpoint(url=C, name="x"), Endpoint(url=B)],
            id="moved",
        ),
        pytest.param(
            [Endpoint(url=A, name="x"), Endpoint(url=B, name="y")],
            Endpoint(url=A, name="y"),
            [Endpoint(url=A, name="y"), Endpoint(url=B, name="y")],
            id="the URL decides before the name",
        ),
        pytest.param(
            [Endpoint(url=A)], Endpoint(url=A + "?x", name="x"), [Endpoint(url=A), Endpoint(url=A + "?x", name="x")],
            id="differs in the query",
        ),
    ],
)  # fmt: skip
def test_an_endpoint_is_added_or_updated(before: list[Endpoint], new: Endpoint, after: list[Endpoint]) -> None:
    assert added(group(*before), new) == UrlGroup(name="g", created_ms=1_000, updated_ms=2_000, endpoints=tuple(after))


def test_endpoints_are_added_one_after_the_other() -> None:
    after = added(
        group(Endpoint(url=A, name="x")),
        Endpoint(url=B, name="x"),
        Endpoint(url=A),
        Endpoint(url=B, name="y"),
        Endpoint(url=C, name="x"),
    )
    assert after.endpoints == (Endpoint(url=B, name="y"), Endpoint(url=A), Endpoint(url=C, name="x"))


def test_more_endpoints_than_there_may_be() -> None:
    full = group(Endpoint(url=A), Endpoint(url=B, name="x"))
    with pytest.raises(QuotaExceeded, match="endpoints: a URL group has at most 2 of them"):
        added(full, Endpoint(url=C), max_endpoints=2)
    with pytest.raises(QuotaExceeded):
        added(None, Endpoint(url=A), Endpoint(url=B), Endpoint(url=C), max_endpoints=2)
    changed = added(full, Endpoint(url=A, name="z"), Endpoint(url=C, name="x"), max_endpoints=1)
    assert changed.endpoints == (Endpoint(url=A, name="z"), Endpoint(url=C, name="x")), "a full group can be changed"


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        ([EndpointPattern(url=A)], ["b", "c"]),
        ([EndpointPattern(name="x")], ["c"]),
        ([EndpointPattern(url=B, name="x")], ["a", "c"]),
        ([EndpointPattern(url=C, name="x")], ["a", "b", "c"]),
        ([EndpointPattern(url=A), EndpointPattern(url=C)], ["b"]),
        ([EndpointPattern(url="https://a.example"), EndpointPattern(name="X")], ["a", "b", "c"]),
    ],
)
def test_endpoints_equal_in_all_that_is_given_are_removed(patterns: list[EndpointPattern], kept: list[str]) -> None:
    endpoints = {"a": Endpoint(url=A, name="x"), "b": Endpoint(url=B, name="x"), "c": Endpoint(url=C)}
    left = remove_endpoints(group(*endpoints.values()), patterns, 2_000)
    assert left is not None
    assert left.endpoints == tuple(endpoints[one] for one in kept)
    assert left.updated_ms == (1_000 if len(kept) == 3 else 2_000)


def test_nothing_is_left_of_a_group_without_endpoints() -> None:
    assert remove_endpoints(group(Endpoint(url=A)), [EndpointPattern(url=A)], 2_000) is None


def test_default_headers_are_replaced() -> None:
    before = UrlGroup(name="g", created_ms=1_000, updated_ms=1_000, headers=(("Upstash-Retries", "1"),))
    after = replace_headers(before, (("Upstash-Delay", "1s"),), 2_000)
    assert after == UrlGroup(name="g", created_ms=1_000, updated_ms=2_000, headers=(("Upstash-Delay", "1s"),))


def test_a_clock_that_was_set_back_leaves_no_update_before_the_creation() -> None:
    late = UrlGroup(name="g", created_ms=9_000, updated_ms=9_000, endpoints=(Endpoint(url=A), Endpoint(url=B)))
    assert added(late, Endpoint(url=C)).updated_ms == 9_000
    assert replace_headers(late, (), 2_000).updated_ms == 9_000
    left = remove_endpoints(late, [EndpointPattern(url=A)], 2_000)
    assert left is not None
    assert left.updated_ms == 9_000

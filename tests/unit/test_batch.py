"""A batch's array into items, each good or bad on its own."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain import batch
from qstash_clone.domain.batch import BatchItem, body_bytes, header_lines, parse_batch
from qstash_clone.errors import BodyTooLarge, InvalidRequest

Lines = list[tuple[bytes, bytes]]


def items_of(value: Any, max_items: int = 100) -> list[BatchItem | InvalidRequest]:
    return parse_batch(json.dumps(value).encode(), max_items)


def item_of(**fields: Any) -> BatchItem:
    [item] = items_of([fields])
    assert isinstance(item, BatchItem)
    return item


def lines_of(item: BatchItem, max_headers: int = 100, max_bytes: int = 1000) -> Lines:
    return list(header_lines(item, max_headers=max_headers, max_bytes=max_bytes))


def test_items_come_in_order() -> None:
    items = items_of([{"destination": f"https://e.com/{number}", "queue": "q"} for number in range(3)])
    assert [item.destination for item in items if isinstance(item, BatchItem)] == [
        "https://e.com/0",
        "https://e.com/1",
        "https://e.com/2",
    ]
    assert items_of([]) == []


def test_null_and_missing_are_the_same() -> None:
    given = item_of(destination=None, headers=None, body=None, queue=None, callback=None, unknown=1)
    for item in (given, item_of()):
        assert (item.destination, item.headers, item.queue, item.callback) == (None, None, None, None)
        assert body_bytes(item, 0) == b""
        assert lines_of(item) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "it does not begin with ["),
        (b" ", "it does not begin with ["),
        (b"{}", "it does not begin with ["),
        (b"null", "it does not begin with ["),
        (b"[{}", "there is neither , nor ] at character 3"),
        (b"[{} {}]", "there is neither , nor ] at character 4"),
        (b"[", "Expecting value"),
        (b"[{},]", "Expecting value"),
        (b'[{"a":}]', "Expecting value"),
        (b"[{}] x", "something follows its end"),
        (b"[] x", "something follows its end"),
        (b'[{"body":NaN}]', "NaN is not JSON"),
        (b'[{"destination":"\xff"}]', "'utf-8' codec can't decode"),
        (b"[" * 100_000, "maximum recursion depth exceeded"),
    ],
)
def test_a_body_that_is_no_array_is_refused_as_a_whole(body: bytes, problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_batch(body, 10)
    assert str(caught.value).startswith(f"the body is not a JSON array: {problem}")


def test_an_item_that_cannot_be_read_leaves_the_others_alone() -> None:
    text = b"""[ {"destination":"a"} , 7, [], {"destination":1}, {"headers":{"a":1}}, {"queue":{}} ,
        {"body":"\\ud800"},
        {"destination":"b", "body" : [1, 2.50, 1e999] } ]"""
    first, *bad, last = parse_batch(text, 100)
    assert isinstance(first, BatchItem)
    assert first.destination == "a"
    assert [str(error) for error in bad] == [
        "the item is malformed: Expected `object`, got `int`",
        "the item is malformed: Expected `object`, got `array`",
        "the item is malformed: Expected `str | null`, got `int` - at `$.destination`",
        "the item is malformed: Expected `str | array`, got `int` - at `$.headers[...]`",
        "the item is malformed: Expected `str | null`, got `object` - at `$.queue`",
        "the item cannot be read: Input data was truncated",
    ]
    assert isinstance(last, BatchItem)
    assert body_bytes(last, 100) == b"[1,2.50,1e999]"
    assert lines_of(last) == [(b"content-type", b"application/json")]


def test_an_item_nested_too_deeply_is_refused_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(text: str) -> BatchItem:
        raise RecursionError("too deep")

    monkeypatch.setattr(batch, "_decode_item", give_up)
    [error] = items_of([7])
    assert str(error) == "the item cannot be read: too deep"


@pytest.mark.parametrize("element", [{"destination": "a"}, 7])
def test_more_items_than_allowed_are_too_large(element: Any) -> None:
    assert len(items_of([element] * 3, max_items=3)) == 3
    with pytest.raises(BodyTooLarge, match=r"^the batch has more than the limit of 3 items$"):
        items_of([element] * 4, max_items=3)


def test_a_flood_of_objects_is_counted_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(body: bytes) -> list[BatchItem]:
        raise AssertionError

    monkeypatch.setattr(batch, "_MAX_DECODED_TOGETHER", 3)
    monkeypatch.setattr(batch, "_decode_all", fail)
    assert len(items_of([{"body": "{"}] * 2)) == 2
    with pytest.raises(BodyTooLarge):
        items_of([{}] * 4, max_items=3)


@pytest.mark.parametrize(
    ("body", "delivered", "is_json"),
    [
        ("", b"", False),
        ("plain", b"plain", False),
        ("gr\xfc\xdfe \U0001f600", "gr\xfc\xdfe \U0001f600".encode(), False),
        ('{"a": 1}', b'{"a": 1}', False),
        ("null", b"null", False),
        ({"a": [1, {"b": "x y"}]}, b'{"a":[1,{"b":"x y"}]}', True),
        ([], b"[]", True),
        (0, b"0", True),
        (False, b"false", True),
    ],
)
def test_bodies(body: object, delivered: bytes, is_json: bool) -> None:
    item = item_of(body=body)
    assert body_bytes(item, 100) == delivered
    assert lines_of(item) == ([(b"content-type", b"application/json")] if is_json else [])


@pytest.mark.parametrize("name", ["Content-Type", "upstash-forward-CONTENT-type"])
def test_json_has_the_content_type_that_is_given(name: str) -> None:
    item = item_of(body={}, headers={name: "text/x"})
    assert lines_of(item) == [(name.lower().encode(), b"text/x")]


def test_a_body_over_the_limit_is_refused() -> None:
    for body in ("12345", [123]):
        assert len(body_bytes(item_of(body=body), 5)) == 5
        with pytest.raises(BodyTooLarge, match=r"^the body is larger than the limit of 4 bytes$"):
            body_bytes(item_of(body=body), 4)


def test_a_body_that_is_no_text_is_refused() -> None:
    [item] = parse_batch(b'[{"body":"\xff"}]', 1)
    assert isinstance(item, BatchItem)
    with pytest.raises(InvalidRequest, match=r"^body: 'utf-8' codec can't decode"):
        body_bytes(item, 100)


def test_headers_are_lines_of_a_request() -> None:
    item = item_of(headers={"Upstash-METHOD": " PUT ", "x-a": ["1, 2", "3"], "X-B": "\xfc", "x-c": []})
    assert lines_of(item) == [
        (b"upstash-method", b"PUT"),
        (b"x-a", b"1, 2"),
        (b"x-a", b"3"),
        (b"x-b", b"\xc3\xbc"),
    ]


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"a b": "1"}, 'headers: "a b" is not a header name'),
        ({"": "1"}, 'headers: "" is not a header name'),
        ({"x\xe9": "1"}, 'headers: "x\xe9" is not a header name'),
        ({"X-A\r\nX-B": "1"}, 'headers: "X-A\ufffd\ufffdX-B" is not a header name'),
        ({"X-A": "1\r\nX-B: 2"}, "headers: X-A: the value contains a control character"),
        ({"X-A": ["1", "\x00"]}, "headers: X-A: the value contains a control character"),
    ],
)
def test_names_and_values_that_no_line_can_have_are_refused(headers: dict[str, Any], error: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        lines_of(item_of(headers=headers))
    assert str(caught.value) == error


def test_headers_are_held_to_the_limits_of_a_request() -> None:
    item = item_of(headers={"a": "12", "b": ["3", "4"]})
    assert len(lines_of(item, max_headers=3, max_bytes=7)) == 3
    with pytest.raises(BodyTooLarge, match=r"^headers: 3 are more than the limit of 2$"):
        lines_of(item, max_headers=2)
    with pytest.raises(BodyTooLarge, match=r"^headers: 7 bytes are more than the limit of 6$"):
        lines_of(item, max_bytes=6)


def test_a_callback_beside_the_headers_stands_for_the_header() -> None:
    url = "https://c.example"
    assert lines_of(item_of(callback=url)) == [(b"upstash-callback", b"https://c.example")]
    assert lines_of(item_of(callback="")) == []
    assert lines_of(item_of(callback=url, headers={"upstash-Callback": "https://d.example"})) == [
        (b"upstash-callback", b"https://d.example")
    ]
    with pytest.raises(InvalidRequest, match=r"^callback: the value contains a control character$"):
        lines_of(item_of(callback="https://e.com\n"))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_elements = _json | st.fixed_dictionaries(
    {}, optional={"destination": _json, "body": _json, "headers": _json, "queue": _json, "callback": _json}
)


@given(st.lists(_elements, max_size=5), st.sampled_from([None, 1]))
def test_any_array_gives_an_item_or_an_error_for_each_element(elements: list[Any], indent: int | None) -> None:
    items = parse_batch(json.dumps(elements, indent=indent).encode(), 100)
    assert len(items) == len(elements)
    for item, element in zip(items, elements, strict=True):
        if isinstance(item, BatchItem):
            body = body_bytes(item, 1000)
            given = element.get("body")
            assert (body.decode() if isinstance(given, str) else json.loads(body or b"null")) == given
        else:
            assert str(item).isprintable()


@given(st.binary(max_size=20))
def test_any_bytes_are_items_or_refused(body: bytes) -> None:
    try:
        items = parse_batch(body, 100)
    except InvalidRequest as error:
        items, refusal = [], str(error)
        assert refusal.isprintable()
    assert items == [] or b"[" in body

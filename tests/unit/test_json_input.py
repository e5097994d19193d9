"""JSON of the Kafka REST APIs: strict, but for commas at the end of a list and a byte-order mark."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.api.topics.json_input import parse_json, without_trailing_commas
from qstash_clone.errors import InvalidRequest

ANYTHING = msgspec.json.Decoder(Any)

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text('",[]{}\\ a\n\u20ac\U0001f600')
VALUES = st.recursive(
    SCALARS,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text('",]}\\ b', max_size=5), values, max_size=4),
    max_leaves=12,
)
BLANKS = st.text(" \t\r\n", max_size=3)


def written(value: Any, blanks: st.SearchStrategy[str], draw: Any) -> str:
    """The value in JSON, with a comma behind the last member of everything that has members."""
    comma = f"{draw(blanks)},{draw(blanks)}"
    if isinstance(value, list) and value:
        return "[" + comma.join(written(one, blanks, draw) for one in value) + comma + "]"  # pyright: ignore
    if isinstance(value, dict) and value:
        members = (f"{json.dumps(name)}:{written(one, blanks, draw)}" for name, one in value.items())  # pyright: ignore
        return "{" + comma.join(members) + comma + "}"
    return json.dumps(value)


@given(VALUES, st.data())
def test_commas_before_a_closing_bracket_do_not_count(value: Any, data: st.DataObject) -> None:
    text = written(value, BLANKS, data.draw)
    assert parse_json(text.encode(), ANYTHING) == value


@given(VALUES, st.booleans())
def test_valid_json_is_what_it_was(value: Any, is_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii).encode()
    assert without_trailing_commas(text) == text
    assert parse_json(b"\xef\xbb\xbf" + text, ANYTHING) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"[,]", []),
        (b"[1 ,\n]", [1]),
        (b'{"a":",]",}', {"a": ",]"}),
        (b'["\\",]",]', ['",]']),
        (b'{"a":1,"a":2}', {"a": 2}),
    ],
)
def test_what_is_accepted(text: bytes, value: Any) -> None:
    assert parse_json(text, ANYTHING) == value


@pytest.mark.parametrize(
    "text",
    [
        b"", b" \r\n\t", b"\xef\xbb\xbf", b"[1,,]", b"[,1]", b"{'a':1}", b'{"a" 1}', b"[1] 2", b"NaN", b"[01]", b"[1.]",
        b'["\n"]', b"[1", b'"a', b"\xff", b'{"x":"\xff"}', b'"\\ud800"', b'"\\udc00"', b'"\\ud800a"', b'{"\\ud800":1}',
        '{"a":1}'.encode("utf-16"), b"value=1&key=2", b"[" * 200_000,
    ],
)  # fmt: skip
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"the body is (empty|not)"):
        parse_json(text, ANYTHING)


@pytest.mark.parametrize("unit", [b'\\"', b'"', b",", b", ", b"\\", b'",', b"[,"])
def test_long_nonsense_takes_no_longer_than_its_length(unit: bytes) -> None:
    """Quadratic, a megabyte of this would take hours: the time limit of tests ends it."""
    without_trailing_commas(b'["' + unit * 500_000)

"""From Avro's JSON form to its binary form, held against what fastavro reads and writes."""

import io
import json
from typing import Any, cast

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.topics.avro_data import Mismatch, check_binary, encode_json
from qstash_clone.topics.avro_schema import parse_schema
from qstash_clone.topics.avro_types import TooMuchWork

INNER = {"type": "record", "name": "n.Inner", "fields": [{"name": "x", "type": "long"}]}
SCHEMA: Any = {
    "type": "record",
    "name": "Outer",
    "fields": [
        {"name": "flag", "type": "boolean"},
        {"name": "small", "type": "int"},
        {"name": "large", "type": "long"},
        {"name": "double", "type": "double"},
        {"name": "raw", "type": "bytes"},
        {"name": "text", "type": "string"},
        {"name": "color", "type": {"type": "enum", "name": "Color", "symbols": ["RED", "BLUE"]}},
        {"name": "four", "type": {"type": "fixed", "name": "Four", "size": 4}},
        {"name": "list", "type": {"type": "array", "items": "string"}},
        {"name": "map", "type": {"type": "map", "values": "long"}},
        {"name": "choice", "type": ["null", "string", "long", INNER, {"type": "array", "items": "int"}]},
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}
_INT, _LONG = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def data() -> st.SearchStrategy[dict[str, Any]]:
    """Data as Python has it; a union is a pair of branch and value."""
    choices = st.one_of(
        st.none(),
        st.tuples(st.just("string"), _TEXT),
        st.tuples(st.just("long"), _LONG),
        st.tuples(st.just("n.Inner"), st.fixed_dictionaries({"x": _LONG})),
        st.tuples(st.just("array"), st.lists(_INT, max_size=5)),
    )
    fields: dict[str, st.SearchStrategy[Any]] = {
        "flag": st.booleans(),
        "small": _INT,
        "large": _LONG,
        "double": st.floats(allow_nan=False, allow_infinity=False),
        "raw": st.binary(max_size=20),
        "text": _TEXT,
        "color": st.sampled_from(["RED", "BLUE"]),
        "four": st.binary(min_size=4, max_size=4),
        "list": st.lists(_TEXT, max_size=5),
        "map": st.dictionaries(_TEXT, _LONG, max_size=5),
        "choice": choices,
        "time": st.integers(0, 2**40),
    }
    return st.fixed_dictionaries(fields)


def in_json(datum: dict[str, Any]) -> str:
    choice = datum["choice"]
    shown = {
        **datum,
        "raw": datum["raw"].decode("latin-1"),
        "four": datum["four"].decode("latin-1"),
        "choice": None if choice is None else {choice[0]: choice[1]},
    }
    return json.dumps(shown)


def read(schema: Any, encoded: bytes) -> Any:
    """What fastavro finds in it, which must be all of it."""
    source = io.BytesIO(encoded)
    library: Any = fastavro
    found = library.schemaless_reader(source, library.parse_schema(schema), None)
    assert not source.read()
    return found


@given(data())
def test_data_are_read_by_another_library_as_they_were(datum: dict[str, Any]) -> None:
    encoded = encode_json(parse_schema(json.dumps(SCHEMA)).type, in_json(datum))
    found = read({**SCHEMA, "fields": [*SCHEMA["fields"][:-1], {"name": "time", "type": "long"}]}, encoded)
    choice = datum["choice"]
    assert found == {**datum, "choice": None if choice is None else choice[1]}
    check_binary(parse_schema(json.dumps(SCHEMA)).type, encoded)


@given(data(), st.data())
def test_binary_data_that_are_cut_or_longer_are_refused(datum: dict[str, Any], draw: st.DataObject) -> None:
    schema = parse_schema(json.dumps(SCHEMA)).type
    encoded = encode_json(schema, in_json(datum))
    with pytest.raises(Mismatch):
        check_binary(schema, encoded[: draw.draw(st.integers(0, len(encoded) - 1))])
    with pytest.raises(Mismatch, match="the datum ends at byte"):
        check_binary(schema, encoded + b"\0")


@given(st.binary(max_size=200))
def test_any_bytes_are_data_or_refused(junk: bytes) -> None:
    try:
        check_binary(parse_schema(json.dumps(SCHEMA)).type, junk)
    except (Mismatch, TooMuchWork):
        return
    read(SCHEMA, junk)


@pytest.mark.parametrize(
    ("schema", "text", "encoded"),
    [
        ("null", "null", b""),
        ("boolean", "true", b"\1"),
        ("boolean", "false", b"\0"),
        ("int", "-1", b"\1"),
        ("long", "64", b"\x80\1"),
        ("long", str(-(2**63)), b"\xff" * 9 + b"\1"),
        ("float", "1", b"\0\0\x80\x3f"),
        ("float", '"NaN"', b"\0\0\xc0\x7f"),
        ("double", '"-Infinity"', b"\0\0\0\0\0\0\xf0\xff"),
        ("string", '"foo"', b"\6foo"),
        ("bytes", '"\\u0000\\u00ff"', b"\4\0\xff"),
        ({"type": "array", "items": "long"}, "[3, 27]", b"\4\6\x36\0"),
        ({"type": "array", "items": "long"}, "[]", b"\0"),
        ({"type": "map", "values": "int"}, '{"a": 1}', b"\2\2a\2\0"),
        (["null", "string"], '{"string": "a"}', b"\2\2a"),
        (["null", "string"], "null", b"\0"),
        ([{"type": "map", "values": "int"}], '{"map": {"a": 1}}', b"\0\2\2a\2\0"),
    ],
)
def test_the_examples_of_the_specification(schema: Any, text: str, encoded: bytes) -> None:
    assert encode_json(parse_schema(json.dumps(schema)).type, text) == encoded


def field(of: Any, **others: Any) -> Any:
    return {"type": "record", "name": "R", "fields": [{"name": "a", "type": of, **others}]}


@pytest.mark.parametrize(
    ("schema", "text", "message"),
    [
        ("int", "1.0", "1.0 is no int"),
        ("int", "true", "true is no int"),
        ("int", '"1"', '"1" is no int'),
        ("int", str(2**31), "is no int"),
        ("long", str(2**63), "is no long"),
        ("long", str(2**80), "is no long"),
        ("float", "true", "true is no float"),
        ("float", "1e300", "1e300 is no float"),
        ("double", '"x"', '"x" is no double'),
        ("double", "null", "null is no double"),
        ("boolean", "1", "1 is no boolean"),
        ("null", "0", "0 is no null"),
        ("string", "null", "null is no string"),
        ("bytes", '"\\u0100"', "is no bytes"),
        ("bytes", "1", "is no bytes"),
        ({"type": "fixed", "name": "F", "size": 2}, '"abc"', "F has 2 bytes, not 3"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, '"B"', "is no symbol of E"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, "[]", "is no symbol of E"),
        ({"type": "array", "items": "int"}, "{}", "is no array"),
        ({"type": "array", "items": "int"}, '[1, "x"]', '[1]: "x" is no int'),
        ({"type": "map", "values": "int"}, "[]", "is no map"),
        ({"type": "map", "values": "int"}, '{"k": null}', "k: null is no int"),
        (["null", "string"], '"a"', 'use null or {"<branch>": value} with one of null, string'),
        (["null", "string"], '{"string": "a", "null": null}', "is no union"),
        (["null", "string"], '{"int": 1}', "the union has no int, only null, string"),
        (["string"], "null", "the union has no null"),
        (field("int"), "1", "1 is no R"),
        (field("int"), "{}", "a: it is missing"),
        (field("int"), '{"a": 1, "b": 2}', "R has no field 'b'"),
        (field(["null", {**field("int"), "name": "S"}]), '{"a": {"S": {"a": "x"}}}', 'a.S.a: "x" is no int'),
        ("int", "{", "is not JSON"),
        ("string", '"\\ud800"', "is not JSON"),
    ],
)
def test_what_does_not_match_is_said_with_its_place(schema: Any, text: str, message: str) -> None:
    with pytest.raises(Mismatch) as caught:
        encode_json(parse_schema(json.dumps(schema)).type, text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("of", "default", "expected"),
    [
        ("int", 7, 7),
        (["null", "int"], None, None),
        (["int", "null"], 7, 7),
        (["null", "int"], 7, 7),
        ("bytes", "\u00ff", b"\xff"),
        ({"type": "array", "items": ["null", "string"]}, ["x"], ["x"]),
        ({**field("int", default=3), "name": "S"}, {}, {"a": 3}),
        ({**field(["int", "null"], default=3), "name": "S"}, {"a": None}, {"a": None}),
    ],
)
def test_a_missing_field_takes_its_default(of: Any, default: Any, expected: Any) -> None:
    schema = field(of, default=default)
    plain = {key: value for key, value in cast("dict[str, Any]", schema["fields"][0]).items() if key != "default"}
    encoded = encode_json(parse_schema(json.dumps(schema)).type, "{}")
    assert read({**schema, "fields": [plain]}, encoded) == {"a": expected}


def test_the_default_of_a_field_leaves_those_after_it_in_the_form_of_data() -> None:
    fields = [{"name": "a", "type": "int", "default": 1}, {"name": "b", "type": ["null", "int"]}]
    schema = parse_schema(json.dumps({"type": "record", "name": "R", "fields": fields})).type
    assert encode_json(schema, '{"b": {"int": 2}}') == b"\2\2\4"
    with pytest.raises(Mismatch):
        encode_json(schema, '{"b": 2}')


def test_data_that_are_nested_deeply_are_refused() -> None:
    schema = parse_schema(json.dumps(field(["null", "R"]))).type
    text = '{"a": {"R": ' * 3000 + '{"a": null}' + "}}" * 3000
    with pytest.raises(Mismatch, match=r"nested too deeply|is not JSON"):
        encode_json(schema, text)
    with pytest.raises(Mismatch, match="nested too deeply"):
        check_binary(schema, b"\2" * 5000 + b"\0")


@pytest.mark.parametrize(
    ("schema", "encoded"),
    [
        ({"type": "array", "items": "null"}, b"\xfe\xff\xff\xff\x0f\0"),
        (
            {
                "type": "record",
                "name": "R",
                "fields": [{"name": "a", "type": {"type": "array", "items": field("null")}}],
            }
            | {"name": "S"},
            b"\xfe\xff\xff\xff\x0f\0",
        ),
    ],
)
def test_items_without_bytes_are_counted(schema: Any, encoded: bytes) -> None:
    with pytest.raises(TooMuchWork):
        check_binary(parse_schema(json.dumps(schema)).type, encoded)


@pytest.mark.parametrize(
    ("schema", "encoded", "message"),
    [
        ("boolean", b"\2", "is no boolean"),
        ("string", b"\2\xff", "is not UTF-8"),
        ("string", b"\1", "which it needs"),
        ("int", b"\xff\xff\xff\xff\x1f", "has more than 32 bits"),
        ("int", b"\x80\x80\x80\x80\x80\0", "has more than 32 bits"),
        ("long", b"\x80" * 10 + b"\0", "has more than 64 bits"),
        (["null", "int"], b"\4", "is no index into the union"),
        (["null", "int"], b"\1", "is no index into the union"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\2", "is no index into E"),
        ({"type": "array", "items": "int"}, b"\1\4\2\0", "has another length than it says"),
        ({"type": "map", "values": "int"}, b"\2\2\xff\2\0", "is not UTF-8"),
    ],
)
def test_bytes_that_are_no_datum_are_refused(schema: Any, encoded: bytes, message: str) -> None:
    with pytest.raises(Mismatch) as caught:
        check_binary(parse_schema(json.dumps(schema)).type, encoded)
    assert message in str(caught.value)


def test_blocks_with_their_length_are_data() -> None:
    check_binary(parse_schema('{"type": "array", "items": "int"}').type, b"\3\4\2\4\0")

"""The binary form of Avro data: what is written in it, and which bytes are one."""

import io
import json
from typing import Any, cast

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.topics.avro_binary import check_binary
from qstash_clone.topics.avro_data import Mismatch
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
def test_what_was_written_is_read_as_it_was(datum: dict[str, Any]) -> None:
    encoded = parse_schema(json.dumps(SCHEMA)).encode_json(in_json(datum))
    found = read({**SCHEMA, "fields": [*SCHEMA["fields"][:-1], {"name": "time", "type": "long"}]}, encoded)
    choice = datum["choice"]
    assert found == {**datum, "choice": None if choice is None else choice[1]}
    check_binary(parse_schema(json.dumps(SCHEMA)).type, encoded)


@given(data(), st.data())
def test_binary_data_that_are_cut_or_longer_are_refused(datum: dict[str, Any], draw: st.DataObject) -> None:
    schema = parse_schema(json.dumps(SCHEMA)).type
    encoded = parse_schema(json.dumps(SCHEMA)).encode_json(in_json(datum))
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
    assert parse_schema(json.dumps(schema)).encode_json(text) == encoded


def field(of: Any, **others: Any) -> Any:
    return {"type": "record", "name": "R", "fields": [{"name": "a", "type": of, **others}]}


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
    encoded = parse_schema(json.dumps(schema)).encode_json("{}")
    assert read({**schema, "fields": [plain]}, encoded) == {"a": expected}


def test_the_default_of_a_field_leaves_those_after_it_in_the_form_of_data() -> None:
    fields = [{"name": "a", "type": "int", "default": 1}, {"name": "b", "type": ["null", "int"]}]
    schema = parse_schema(json.dumps({"type": "record", "name": "R", "fields": fields}))
    assert schema.encode_json('{"b": {"int": 2}}') == b"\2\2\4"
    with pytest.raises(Mismatch):
        schema.encode_json('{"b": 2}')


TWO = {"type": "fixed", "name": "Two", "size": 2}


@pytest.mark.parametrize(
    ("schema", "text", "encoded"),
    [
        # A type without a namespace within one that has one, and a second use of it where it can be used.
        (
            {
                "type": "record",
                "name": "n.R",
                "fields": [
                    {"name": "a", "type": {**TWO, "namespace": ""}},
                    {"name": "b", "type": ["null", {**field(["null", "Two"]), "name": "S", "namespace": ""}]},
                    {"name": "c", "type": ["null", "R"]},
                ],
            },
            '{"a": "ab", "b": {"S": {"a": {"Two": "cd"}}}, "c": {"n.R": {"a": "ef", "b": null, "c": null}}}',
            b"ab\2\2cd\2ef\0\0",
        ),
        ([TWO, {"type": "enum", "name": "x.E", "symbols": ["A", "B"]}], '{"x.E": "B"}', b"\2\2"),
        ([{**TWO, "name": "_"}, {**TWO, "name": "__"}], '{"__": "ab"}', b"\2ab"),
        (
            {"type": "array", "items": {"type": "map", "values": ["null", TWO]}},
            '[{"k": {"Two": "ab"}}]',
            b"\2\2\2k\2ab\0\0",
        ),
        ({"type": "error", "name": "R", "fields": []}, "{}", b""),
        ([{"type": "int", "note": 1}], '{"int": 1}', b"\0\2"),
        # Both uses of a name are right, and only the plain one is taken by fastavro.
        (
            {
                "type": "record",
                "name": "R",
                "fields": [{"name": "a", "type": TWO}, {"name": "b", "type": {"type": "Two"}}],
            },
            '{"a": "ab", "b": "cd"}',
            b"abcd",
        ),
        (field({"type": "double"}, default=1), "{}", b"\0\0\0\0\0\0\xf0\x3f"),
        # Properties that mean something to fastavro.
        (
            {**field({**TWO, "namespace": "n"}), "__fastavro_parsed": True, "__named_schemas": {"n.Two": "int"}},
            '{"a": "ab"}',
            b"ab",
        ),
    ],
)
def test_what_is_written_follows_the_schema_as_it_was_read(schema: Any, text: str, encoded: bytes) -> None:
    parsed = parse_schema(json.dumps(schema))
    for _ in range(2):
        assert parsed.encode_json(text) == encoded
    check_binary(parsed.type, encoded)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        *(({"type": "int", "logicalType": kind}, "-7") for kind in ("date", "time-millis", "unknown")),
        *(
            ({"type": "long", "logicalType": kind}, str(2**62))
            for kind in (
                "time-micros",
                "timestamp-millis",
                "timestamp-micros",
                "timestamp-nanos",
                "local-timestamp-millis",
                "local-timestamp-micros",
            )
        ),
        ({"type": "string", "logicalType": "uuid"}, '"no uuid"'),
        ({"type": "string", "logicalType": "date"}, '"2024-01-01"'),
        ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, '"\u00ff"'),
        ({"type": "bytes", "logicalType": "decimal"}, '"\u00ff"'),
        ({"type": "bytes", "logicalType": "decimal", "precision": "x", "scale": -1}, '"\u00ff"'),
        ({**TWO, "logicalType": "decimal", "precision": 4}, '"ab"'),
        ({**TWO, "logicalType": "decimal", "precision": 40}, '"ab"'),
        ({"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}, '"0123456789ab"'),
        ({"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}, '"0123456789abcdef"'),
    ],
)
def test_logical_types_change_nothing(schema: Any, text: str) -> None:
    plain = {name: value for name, value in schema.items() if name in ("type", "name", "size")}
    expected = parse_schema(json.dumps(plain)).encode_json(text)
    assert parse_schema(json.dumps(schema)).encode_json(text) == expected
    assert (
        parse_schema(json.dumps(["null", schema])).encode_json(f'{{"{schema.get("name", schema["type"])}": {text}}}')
        == b"\2" + expected
    )
    assert read(plain, expected) == (
        json.loads(text).encode("latin-1") if schema["type"] in ("bytes", "fixed") else json.loads(text)
    )


def test_schemas_and_data_as_deep_as_can_be_read_are_written() -> None:
    chain = parse_schema(json.dumps(field(["null", "R"])))
    assert chain.encode_json('{"a": {"R": ' * 190 + '{"a": null}' + "}}" * 190) == b"\2" * 190 + b"\0"
    depth = 150
    arrays = parse_schema('{"type": "array", "items": ' * depth + '"int"' + "}" * depth)
    assert arrays.encode_json("[" * depth + "7" + "]" * depth) == b"\2" * depth + b"\x0e" + b"\0" * depth


def test_bytes_that_are_nested_deeply_are_refused() -> None:
    with pytest.raises(Mismatch, match="nested too deeply"):
        check_binary(parse_schema(json.dumps(field(["null", "R"]))).type, b"\2" * 5000 + b"\0")


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

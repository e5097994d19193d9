"""What Avro's JSON form holds: which texts are data of a schema, and what they are read as."""

import json
from typing import Any

import pytest

from qstash_clone.topics.avro_data import Mismatch, read_json
from qstash_clone.topics.avro_schema import parse_schema
from qstash_clone.topics.avro_types import TooMuchWork


def read(schema: Any, text: str) -> Any:
    return read_json(parse_schema(json.dumps(schema)).type, text)


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
        read(schema, text)
    assert message in str(caught.value)


def test_a_union_is_read_as_its_branch_and_the_value() -> None:
    inner = {"type": "record", "name": "n.Inner", "fields": [{"name": "x", "type": "bytes"}]}
    listed = {"type": "array", "items": [inner, "null", {"type": "array", "items": "float"}]}
    text = '[{"n.Inner": {"x": "\u00ff"}}, null, {"array": [1, "Infinity"]}]'
    assert read(listed, text) == [
        ("n.Inner", {"x": b"\xff"}),
        ("null", None),
        ("array", [1.0, float("inf")]),
    ]


@pytest.mark.parametrize(
    ("of", "default", "expected"),
    [
        ("int", 7, 7),
        (["null", "int"], None, ("null", None)),
        (["null", "int"], 7, ("int", 7)),
        ([{"type": "map", "values": "string"}, "n.R"], {"k": "x"}, ("map", {"k": "x"})),
        ({**field(["int", "null"], default=3), "name": "S"}, {"a": None}, {"a": ("null", None)}),
    ],
)
def test_a_default_is_read_as_data_are(of: Any, default: Any, expected: Any) -> None:
    assert read({**field(of, default=default), "name": "n.R"}, "{}") == {"a": expected}


def test_data_that_are_nested_deeply_are_refused() -> None:
    schema = field(["null", "R"])
    for depth in (200, 3000):
        with pytest.raises(Mismatch, match=r"nested too deeply|is not JSON"):
            read(schema, '{"a": {"R": ' * depth + '{"a": null}' + "}}" * depth)


@pytest.mark.parametrize(
    ("items", "item"),
    [
        ({"type": "enum", "name": "E", "symbols": [f"S{number}" for number in range(10_000)]}, "S9999"),
        ([{"type": "fixed", "name": f"F{number}", "size": 0} for number in range(10_000)], {"F9999": ""}),
    ],
)
def test_symbols_and_branches_that_are_found_late_count_for_more(items: Any, item: Any) -> None:
    schema = {"type": "array", "items": items}
    assert read(schema, json.dumps([item] * 100))
    with pytest.raises(TooMuchWork):
        read(schema, json.dumps([item] * 1000))

"""Which texts are Avro schemas, what their types are called, and which of them are equal."""

import json
from typing import Any

import pytest

from qstash_clone.topics.avro_schema import InvalidSchema, parse_schema
from qstash_clone.topics.avro_types import EnumType, FixedType, Primitive, RecordType, UnionType


def record(*fields: Any, **others: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": list(fields), **others}


def parse(schema: Any) -> Any:
    return parse_schema(json.dumps(schema)).type


@pytest.mark.parametrize("name", ["null", "boolean", "int", "long", "float", "double", "bytes", "string"])
def test_a_primitive_is_its_name_or_an_object_of_that_type(name: str) -> None:
    for schema in (name, {"type": name}, {"type": name, "logicalType": "whatever"}):
        found = parse(schema)
        assert isinstance(found, Primitive)
        assert found.name == name


def test_names_get_the_namespace_around_them() -> None:
    inner = {"type": "enum", "name": "E", "symbols": ["A"], "aliases": ["Old", "other.E"]}
    found = parse(
        record(
            {"name": "a", "type": inner, "aliases": ["b"]},
            {"name": "again", "type": "E"},
            {"name": "with", "type": "com.acme.E"},
            {"name": "far", "type": {"type": "fixed", "name": "F", "namespace": "x", "size": 2}},
            {"name": "dotted", "type": {"type": "fixed", "name": "y.F", "namespace": "ignored", "size": 3}},
            {"name": "none", "type": {"type": "fixed", "name": "G", "namespace": "", "size": 0}},
            {"name": "self", "type": ["null", "R"]},
            namespace="com.acme",
        )
    )
    assert isinstance(found, RecordType)
    assert found.name == "com.acme.R"
    enum, again, with_, far, dotted, none, self_ = [field.type for field in found.fields]
    assert isinstance(enum, EnumType)
    assert (enum.name, enum.aliases, enum.symbols) == ("com.acme.E", ["com.acme.Old", "other.E"], {"A": 0})
    assert again is with_ is enum
    assert found.fields[0].aliases == ["b"]
    assert [one.name for one in (far, dotted, none) if isinstance(one, FixedType)] == ["x.F", "y.F", "G"]
    assert isinstance(self_, UnionType)
    assert self_.branches[1] is found
    assert self_.labels == {"null": 0, "com.acme.R": 1}


@pytest.mark.parametrize(
    ("schema", "fullname"),
    [
        (record(), "R"),
        (record(namespace="a.b"), "a.b.R"),
        (record(name="a.b.R"), "a.b.R"),
        ({"type": "error", "name": "E", "fields": []}, "E"),
        ({"type": "enum", "name": "E", "namespace": "n", "symbols": []}, "n.E"),
        ({"type": "fixed", "name": "F", "size": 1}, "F"),
        ("string", None),
        (["null", "string"], None),
        ({"type": "array", "items": record()}, None),
    ],
)
def test_the_full_name_of_a_schema_is_that_of_its_named_type(schema: Any, fullname: str | None) -> None:
    assert parse_schema(json.dumps(schema)).fullname == fullname


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (1, "schema: 1 is no type"),
        (None, "schema: nothing is no type"),
        ("strin", "there is no type 'strin'"),
        ({}, "schema.type: nothing is no name of a type"),
        ({"type": {"type": "string"}}, "is no name of a type"),
        ({"type": "array"}, "schema.items: nothing"),
        ({"type": "map", "values": "nothing"}, "schema.values: there is no type"),
        (["int", "int"], "has int twice"),
        (["null", ["int"]], "holds no other union"),
        ([{"type": "array", "items": "int"}, {"type": "array", "items": "long"}], "has array twice"),
        ([record(), "R"], "has R twice"),
        ({"type": "record", "fields": []}, "schema.name: nothing is no name"),
        (record(name="1a"), "is no name"),
        (record(name="a..b"), "is no name"),
        (record(name="a-b"), "is no name"),
        (record(name="string"), "primitive"),
        (record(namespace="a-b"), "is no namespace"),
        (record(namespace=1), "is no namespace"),
        ({"type": "record", "name": "R"}, "is no list of fields"),
        ({"type": "record", "name": "R", "fields": "a"}, "is no list of fields"),
        (record("a"), 'schema.fields[0]: "a" is no field'),
        (record({"type": "int"}), "schema.fields[0].name: nothing"),
        (record({"name": "a"}), "has no type"),
        (record({"name": "a", "type": "int"}, {"name": "a", "type": "int"}), "has a field a already"),
        (record({"name": "a", "type": "int", "order": "up"}), "schema.fields[0].order"),
        (record({"name": "a", "type": "int", "aliases": "b"}), "schema.fields[0].aliases"),
        (record(aliases=[1]), "schema.aliases"),
        (record({"name": "a", "type": record()}), "is defined twice"),
        (record({"name": "a", "type": "int", "default": "x"}), 'schema.fields[0].default: "x" is no int'),
        (record({"name": "a", "type": ["null", "int"], "default": "x"}), "fits no branch"),
        (record({"name": "a", "type": "R", "default": {}}), "nested too deeply"),
        ({"type": "enum", "name": "E"}, "schema.symbols: nothing"),
        ({"type": "enum", "name": "E", "symbols": ["a-b"]}, "schema.symbols[0]"),
        ({"type": "enum", "name": "E", "symbols": ["A", "A"]}, "schema.symbols[1]: the symbol A"),
        ({"type": "enum", "name": "E", "symbols": ["A"], "default": "B"}, "schema.default"),
        ({"type": "fixed", "name": "F"}, "schema.size: nothing"),
        ({"type": "fixed", "name": "F", "size": -1}, "schema.size: -1"),
        ({"type": "fixed", "name": "F", "size": True}, "schema.size: true"),
    ],
)
def test_what_is_wrong_with_a_schema_is_said_with_its_place(schema: Any, text: str) -> None:
    with pytest.raises(InvalidSchema) as caught:
        parse(schema)
    assert text in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", '{"type": "int"} x', "'int'", '"\\ud800"', "[" * 100_000, "NaN"])
def test_what_is_not_json_is_no_schema(text: str) -> None:
    with pytest.raises(InvalidSchema, match=r"is not JSON|nested too deeply"):
        parse_schema(text)


def test_a_schema_whose_parts_multiply_is_refused_before_they_do() -> None:
    innermost: Any = record(name="R0")
    schema = record({"name": "a", "type": innermost, "default": {}}, name="R1")
    for level in range(2, 40):
        fields: list[Any] = [
            {"name": "a", "type": schema, "default": {}},
            {"name": "b", "type": f"R{level - 1}", "default": {}},
        ]
        schema = record(*fields, name=f"R{level}")
    with pytest.raises(InvalidSchema, match="stand for more than"):
        parse(schema)


@pytest.mark.parametrize(
    "other",
    [
        '{"name":"R","type":"record","fields":[{"type":"int","name":"a"},{"name":"b","type":"string"}]}',
        '{ "type" : "record" , "name" : "R" , "fields" : [ {"name":"a","type":{"type":"int"}},'
        ' {"name":"b","type":"string"} ] }',
    ],
)
def test_the_order_of_properties_and_blanks_do_not_make_another_schema(other: str) -> None:
    text = '{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":"string"}]}'
    assert parse_schema(text).equality == parse_schema(other).equality


@pytest.mark.parametrize(
    "other",
    [
        '{"type":"record","name":"R","fields":[{"name":"b","type":"string"},{"name":"a","type":"int"}]}',
        '{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":"string"}],"doc":"x"}',
        '{"type":"record","name":"S","fields":[{"name":"a","type":"int"},{"name":"b","type":"string"}]}',
    ],
)
def test_the_order_of_fields_and_everything_else_make_another_schema(other: str) -> None:
    text = '{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":"string"}]}'
    assert parse_schema(text).equality != parse_schema(other).equality


def test_a_default_that_looks_like_a_type_stays_what_it_is() -> None:
    field = {"name": "a", "type": {"type": "map", "values": "string"}, "default": {"type": "int"}}
    other = {"name": "a", "type": {"type": "map", "values": "string"}, "default": {"type": "int", "x": "y"}}
    assert b'{"type":"int"}' in parse_schema(json.dumps(record(field))).equality
    assert parse_schema(json.dumps(record(field))).equality != parse_schema(json.dumps(record(other))).equality


def test_the_text_is_kept_in_the_order_given_without_blanks() -> None:
    assert parse_schema(' { "name" : "F" , "type" : "fixed" , "size" : 4 } ').text == (
        '{"name":"F","type":"fixed","size":4}'
    )

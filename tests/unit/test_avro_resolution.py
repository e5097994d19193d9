"""What can be read with another schema; where it is said that it can, fastavro does read it."""

import io
import json
from typing import Any, cast

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.topics.avro_resolution import why_unreadable
from qstash_clone.topics.avro_schema import InvalidSchema, parse_schema
from qstash_clone.topics.avro_types import TooMuchWork


def record(*fields: Any, name: str = "R", **others: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **others}


def field(of: Any, name: str = "a", **others: Any) -> dict[str, Any]:
    return {"name": name, "type": of, **others}


def enum(*symbols: str, **others: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "E", "symbols": symbols, **others}


def why(reader: Any, writer: Any) -> str | None:
    return why_unreadable(parse_schema(json.dumps(reader)).type, parse_schema(json.dumps(writer)).type)


TREE = record(field(["null", "R"], "next"), field("int", "value"))


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        *((name, name) for name in ("null", "boolean", "int", "long", "float", "double", "bytes", "string")),
        *(("long", "int"), ("float", "int"), ("double", "int"), ("float", "long"), ("double", "long")),
        *(("double", "float"), ("string", "bytes"), ("bytes", "string")),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}),
        ({"type": "map", "values": "long"}, {"type": "map", "values": "int"}),
        (["null", "long"], "int"),
        (["null", "long"], ["int", "null"]),
        ("long", ["int", "long"]),
        ("int", []),
        (enum("A", "B"), enum("A")),
        (enum("A", default="A"), enum("B", "C")),
        (enum("A"), enum("A", namespace="other")),
        ({"type": "fixed", "name": "F", "size": 2}, {"type": "fixed", "name": "x.F", "size": 2}),
        (record(), record(field("int"))),
        (record(field("int", default=1)), record()),
        (record(field("long")), record(field("int"))),
        (record(field("int", "new", aliases=["old"])), record(field("int", "old"))),
        (record(aliases=["x.Old"], name="New"), record(name="x.Old")),
        (TREE, TREE),
        (record(field(["null", "R"], "next"), field("long", "value")), TREE),
    ],
)
def test_it_can_be_read(reader: Any, writer: Any) -> None:
    assert why(reader, writer) is None


@pytest.mark.parametrize(
    ("reader", "writer", "reason"),
    [
        ("int", "long", "/: long cannot be read as int"),
        ("float", "double", "/: double cannot be read as float"),
        ("int", "string", "/: string cannot be read as int"),
        ("null", "int", "/: int cannot be read as null"),
        ({"type": "array", "items": "int"}, {"type": "array", "items": "long"}, "/items: long"),
        ({"type": "map", "values": "int"}, {"type": "map", "values": "long"}, "/values: long"),
        ({"type": "array", "items": "int"}, {"type": "map", "values": "int"}, "/: map cannot be read as array"),
        (["null", "int"], "string", "/: the union of the reader has no branch for string"),
        (["null", "int"], ["null", "string"], "has no branch for string"),
        ("int", ["int", "null"], "/: null cannot be read as int"),
        (enum("A"), enum("A", "B"), "/: E has no symbol B"),
        (enum("A", name="D"), enum("A"), "/: E cannot be read as D"),
        ({"type": "fixed", "name": "F", "size": 2}, {"type": "fixed", "name": "F", "size": 3}, "/: F has 2 bytes"),
        ({"type": "fixed", "name": "F", "size": 2}, {"type": "fixed", "name": "G", "size": 2}, "/: G cannot"),
        (record(field("int")), record(), "/a: the field is not written"),
        (record(field("int")), record(field("string")), "/a: string cannot be read as int"),
        (record(name="S"), record(), "/: R cannot be read as S"),
        (record(name="S", aliases=["x.R"]), record(), "/: R cannot be read as S"),
        (record(), "int", "/: int cannot be read as R"),
        (
            record(field(["null", "R"], "next"), field("string", "value")),
            TREE,
            "/value: int cannot be read as string",
        ),
    ],
)
def test_it_cannot_be_read_for_a_reason(reader: Any, writer: Any, reason: str) -> None:
    assert (why(reader, writer) or "").startswith(reason) or reason in (why(reader, writer) or "")


def test_what_was_taken_for_readable_on_the_way_is_looked_at_again() -> None:
    """Within the first branch, B is readable only if A is, which then turns out not to be."""
    inner = record(field(["null", "A"], "up"), name="B")
    writer = record(field(inner, "first"), field("string", "last"), name="A")
    reader_inner = record(field(["null", "A"], "up"), name="B")
    reader = record(field(reader_inner, "first"), field("int", "last"), name="A")
    assert why(["null", reader], writer) is not None
    outer_writer = record(field(writer, "x"), field("B", "y"), name="O")
    outer_reader = record(field(["null", reader], "x"), field("B", "y"), name="O")
    assert why(outer_reader, outer_writer) is not None


def test_schemas_whose_parts_multiply_are_compared_once() -> None:
    schema: Any = record(field("int"), name="R0")
    for level in range(1, 60):
        schema = record(field(schema, "a"), field(f"R{level - 1}", "b"), name=f"R{level}")
    assert why(schema, schema) is None


def test_unions_of_many_branches_are_compared_up_to_a_limit() -> None:
    branches = [{"type": "fixed", "name": f"F{number}", "size": 1} for number in range(1000)]
    assert why(branches, branches[:10]) is None
    with pytest.raises(TooMuchWork):
        why(branches, [*reversed(branches)])


NAMES = st.sampled_from(["a", "b", "c"])


def schemas() -> st.SearchStrategy[Any]:
    """Small ones, of few names, so that two of them meet."""
    leaves = st.one_of(
        st.sampled_from(["null", "boolean", "int", "long", "float", "double", "string", "bytes"]),
        st.lists(st.sampled_from(["X", "Y", "Z"]), min_size=1, unique=True).map(lambda symbols: enum(*symbols)),
    )

    def extend(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        plain = inner.filter(lambda schema: not isinstance(schema, list))
        return st.one_of(
            inner.map(lambda items: {"type": "array", "items": items}),
            inner.map(lambda values: {"type": "map", "values": values}),
            st.lists(plain, min_size=1, max_size=3),
            st.dictionaries(NAMES, inner, max_size=3).map(
                lambda fields: record(*(field(of, name) for name, of in fields.items()))
            ),
        )

    return st.recursive(leaves, extend, max_leaves=6).filter(is_valid)


def is_valid(schema: Any) -> bool:
    try:
        parse_schema(json.dumps(schema))
    except InvalidSchema:
        return False
    return True


def data_of(schema: Any, draw: Any) -> Any:
    """Any datum, as fastavro writes it."""
    match schema:
        case "null":
            return None
        case "boolean":
            return draw(st.booleans())
        case "int" | "long":
            return draw(st.integers(-1000, 1000))
        case "float" | "double":
            return float(draw(st.integers(-8, 8)))
        case "string":
            return draw(st.text("ab", max_size=3))
        case "bytes":
            return draw(st.binary(max_size=3).filter(lambda data: all(byte < 128 for byte in data)))
        case list():
            return data_of(draw(st.sampled_from(cast("list[Any]", schema))), draw)
        case {"type": "array"}:
            return [data_of(schema["items"], draw) for _ in range(draw(st.integers(0, 2)))]
        case {"type": "map"}:
            return {str(number): data_of(schema["values"], draw) for number in range(draw(st.integers(0, 2)))}
        case {"type": "enum"}:
            return draw(st.sampled_from(list(schema["symbols"])))
        case _:
            return {one["name"]: data_of(one["type"], draw) for one in schema["fields"]}


@given(schemas(), schemas(), st.data())
def test_what_is_said_to_be_readable_is_read_by_another_library(reader: Any, writer: Any, data: st.DataObject) -> None:
    if why(reader, writer) is not None:
        return
    library: Any = fastavro
    out = io.BytesIO()
    library.schemaless_writer(out, library.parse_schema(writer), data_of(writer, data.draw))
    out.seek(0)
    library.schemaless_reader(out, library.parse_schema(writer), library.parse_schema(reader))

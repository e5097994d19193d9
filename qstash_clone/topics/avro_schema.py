"""Avro schemas: from JSON text to types, as strictly as Avro's specification and its Java library read them.

What a registry hands out must be readable by every client, so a name, a default or a union that one of them refuses is
refused here. Logical types are notes on the types below them, which decide how data is encoded.
"""

import re
from typing import Any, Final, cast

import msgspec

from qstash_clone.errors import InvalidRequest
from qstash_clone.topics.avro_binary import BinaryWriter
from qstash_clone.topics.avro_data import Mismatch, check_default, read_json
from qstash_clone.topics.avro_types import (
    PRIMITIVES,
    ArrayType,
    AvroType,
    Budget,
    EnumType,
    Field,
    FixedType,
    MapType,
    Primitive,
    RecordType,
    TooMuchWork,
    UnionType,
    label_of,
)

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FULL_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_ORDERS: Final = ("ascending", "descending", "ignore")
_MAX_FIXED_BYTES: Final = 2**31 - 1


class InvalidSchema(InvalidRequest):
    """A text that is no Avro schema."""


class AvroSchema(msgspec.Struct, frozen=True, eq=False):
    """A schema that was read."""

    type: AvroType
    text: str
    """Its JSON without blanks, properties in the order given."""
    equality: bytes
    """The same for schemas that differ only in blanks and in the order of properties."""
    writer: BinaryWriter

    @property
    def fullname(self) -> str | None:
        """Of a record, an enum or a fixed: `namespace.name`."""
        return self.type.name if isinstance(self.type, (RecordType, EnumType, FixedType)) else None

    def encode_json(self, text: str) -> bytes:
        """The binary form of what a text holds in JSON form. Raises `Mismatch`, `TooMuchWork`."""
        return self.writer.write(read_json(self.type, text))


def parse_schema(text: str) -> AvroSchema:
    """The schema that a text holds. Raises `InvalidSchema`."""
    try:
        given: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidSchema(f"schema: {text[:100]!r} is not JSON: {str(error)[:100]}") from None
    try:
        parsed = _Parser().parse(given, "", "schema")
        return AvroSchema(
            parsed,
            msgspec.json.encode(given).decode(),
            msgspec.json.encode(_simplified(given), order="sorted"),
            BinaryWriter(parsed),
        )
    except TooMuchWork as error:
        raise InvalidSchema(f"schema: {error}") from None
    except RecursionError:
        raise InvalidSchema("schema: it is nested too deeply") from None


def _simplified(given: Any) -> Any:
    """`{"type": "int"}` without anything else is `"int"`."""
    if isinstance(given, list):
        return [_simplified(one) for one in cast("list[Any]", given)]
    if not isinstance(given, dict):
        return given
    fields = cast("dict[str, Any]", given)
    if len(fields) == 1 and fields.get("type") in PRIMITIVES:
        return fields["type"]
    # Defaults are data: what looks like a schema there is none.
    return {name: value if name == "default" else _simplified(value) for name, value in fields.items()}


class _Parser:
    """Reads one schema; knows the types that it has named so far."""

    def __init__(self) -> None:
        self._named: dict[str, AvroType] = {}
        self._budget = Budget()

    def parse(self, given: object, namespace: str, at: str) -> AvroType:
        """The type that stands at a place. Raises `InvalidSchema`, which says where it is wrong."""
        if isinstance(given, str):
            return self._find(given, namespace, at)
        if isinstance(given, list):
            return self._parse_union(cast("list[object]", given), namespace, at)
        if not isinstance(given, dict):
            raise InvalidSchema(f"{at}: {_shown(given)} is no type: use a name, an object or a list")
        schema = cast("dict[str, object]", given)
        kind = schema.get("type")
        if not isinstance(kind, str):
            raise InvalidSchema(f"{at}.type: {_shown(kind)} is no name of a type")
        match kind:
            case "array":
                return ArrayType(self.parse(schema.get("items"), namespace, f"{at}.items"))
            case "map":
                return MapType(self.parse(schema.get("values"), namespace, f"{at}.values"))
            case "record" | "error":
                return self._parse_record(schema, namespace, at)
            case "enum":
                return self._parse_enum(schema, namespace, at)
            case "fixed":
                return self._parse_fixed(schema, namespace, at)
            case _:
                return self._find(kind, namespace, f"{at}.type")

    def _find(self, name: str, namespace: str, at: str) -> AvroType:
        if name in PRIMITIVES:
            return Primitive(name)
        found = self._named.get(name if "." in name or not namespace else f"{namespace}.{name}")
        if found is None:
            raise InvalidSchema(f"{at}: there is no type {name[:100]!r}, or it is used before it is defined")
        return found

    def _parse_union(self, given: list[object], namespace: str, at: str) -> UnionType:
        branches = [self.parse(one, namespace, f"{at}[{place}]") for place, one in enumerate(given)]
        labels: dict[str, int] = {}
        for place, branch in enumerate(branches):
            if isinstance(branch, UnionType):
                raise InvalidSchema(f"{at}: a union holds no other union")
            label = label_of(branch)
            if label in labels:
                raise InvalidSchema(f"{at}: the union has {label} twice")
            labels[label] = place
        return UnionType(branches, labels)

    def _parse_record(self, schema: dict[str, object], namespace: str, at: str) -> RecordType:
        name, inner = _read_name(schema, namespace, at)
        record = RecordType(name, [], _read_aliases(schema, inner, at))
        self._define(name, record, at)
        given = schema.get("fields")
        if not isinstance(given, list):
            raise InvalidSchema(f"{at}.fields: {_shown(given)} is no list of fields")
        names: set[str] = set()
        for place, one in enumerate(cast("list[object]", given)):
            field = self._parse_field(one, inner, f"{at}.fields[{place}]")
            if field.name in names:
                raise InvalidSchema(f"{at}.fields[{place}]: the record has a field {field.name} already")
            names.add(field.name)
            record.fields.append(field)
        for place, field in enumerate(record.fields):
            # Only now, because a default may hold the record itself.
            self._check_default(field, f"{at}.fields[{place}].default")
        return record

    def _parse_field(self, given: object, namespace: str, at: str) -> Field:
        if not isinstance(given, dict):
            raise InvalidSchema(f"{at}: {_shown(given)} is no field")
        schema = cast("dict[str, object]", given)
        name = schema.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidSchema(f"{at}.name: {_shown(name)} is no name: use letters, digits and _, no digit first")
        if "type" not in schema:
            raise InvalidSchema(f"{at}: the field {name[:100]} has no type")
        if schema.get("order", "ascending") not in _ORDERS:
            raise InvalidSchema(f"{at}.order: {_shown(schema['order'])} is none of {', '.join(_ORDERS)}")
        return Field(
            name,
            self.parse(schema["type"], namespace, f"{at}.type"),
            "default" in schema,
            schema.get("default"),
            _read_aliases(schema, "", at),
        )

    def _parse_enum(self, schema: dict[str, object], namespace: str, at: str) -> EnumType:
        name, inner = _read_name(schema, namespace, at)
        given = schema.get("symbols")
        if not isinstance(given, list):
            raise InvalidSchema(f"{at}.symbols: {_shown(given)} is no list of symbols")
        symbols: dict[str, int] = {}
        for place, symbol in enumerate(cast("list[object]", given)):
            if not isinstance(symbol, str) or not _NAME.fullmatch(symbol):
                raise InvalidSchema(f"{at}.symbols[{place}]: {_shown(symbol)} is no name")
            if symbol in symbols:
                raise InvalidSchema(f"{at}.symbols[{place}]: the symbol {symbol[:100]} is there already")
            symbols[symbol] = place
        default = schema.get("default")
        if "default" in schema and default not in symbols:
            raise InvalidSchema(f"{at}.default: {_shown(default)} is none of the symbols")
        enum = EnumType(name, symbols, cast("str | None", default), _read_aliases(schema, inner, at))
        self._define(name, enum, at)
        return enum

    def _parse_fixed(self, schema: dict[str, object], namespace: str, at: str) -> FixedType:
        name, inner = _read_name(schema, namespace, at)
        size = schema.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_FIXED_BYTES:
            raise InvalidSchema(f"{at}.size: {_shown(size)} is no number of bytes")
        fixed = FixedType(name, size, _read_aliases(schema, inner, at))
        self._define(name, fixed, at)
        return fixed

    def _define(self, name: str, defined: AvroType, at: str) -> None:
        if name in self._named:
            raise InvalidSchema(f"{at}: the type {name[:100]} is defined twice")
        self._named[name] = defined

    def _check_default(self, field: Field, at: str) -> None:
        if field.has_default:
            try:
                check_default(field.type, field.default, self._budget)
            except Mismatch as error:
                raise InvalidSchema(f"{at}: {error}") from None


def _read_name(schema: dict[str, object], namespace: str, at: str) -> tuple[str, str]:
    """The full name of a type, and the namespace for those within it."""
    name, given = schema.get("name"), schema.get("namespace", namespace)
    if not isinstance(name, str) or not _FULL_NAME.fullmatch(name):
        raise InvalidSchema(f"{at}.name: {_shown(name)} is no name: use letters, digits and _, no digit first")
    if given is None:
        given = namespace
    if not isinstance(given, str) or (given and not _FULL_NAME.fullmatch(given)):
        raise InvalidSchema(f"{at}.namespace: {_shown(given)} is no namespace")
    full = name if "." in name or not given else f"{given}.{name}"
    if full in PRIMITIVES:
        raise InvalidSchema(f"{at}.name: {full} is the name of a primitive type")
    return full, full.rpartition(".")[0]


def _read_aliases(schema: dict[str, object], namespace: str, at: str) -> list[str]:
    """Full names of a type's aliases; those of a field are given without a namespace."""
    given = schema.get("aliases")
    if given is None:
        return []
    found: list[str] = []
    for alias in cast("list[object]", given) if isinstance(given, list) else [None]:
        if not isinstance(alias, str) or not _FULL_NAME.fullmatch(alias):
            raise InvalidSchema(f"{at}.aliases: {_shown(cast('object', given))} is no list of names")
        found.append(alias if "." in alias or not namespace else f"{namespace}.{alias}")
    return found


def _shown(value: object) -> str:
    return "nothing" if value is None else msgspec.json.encode(value).decode()[:100]

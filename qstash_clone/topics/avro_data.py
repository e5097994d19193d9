"""Data of an Avro schema: from its JSON form to what Python has for it.

The JSON form is Avro's own: a union is `null` or `{"<branch>": value}`, bytes are a string of the characters U+0000 to
U+00FF. A field that is missing takes its default, which Avro's Java library refuses; one that the schema does not have
is refused.
"""

import struct
from typing import Any, Final, cast

import msgspec

from qstash_clone.errors import InvalidRequest
from qstash_clone.topics.avro_types import (
    BITS,
    FLOATS,
    ArrayType,
    AvroType,
    Budget,
    EnumType,
    FixedType,
    MapType,
    Primitive,
    RecordType,
    UnionType,
    label_of,
)

_NOT_FINITE: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_MAX_DEPTH: Final = 400
"""Values within values. fastavro follows them in C without a limit, and overflows the stack at some thousands."""
_SEARCHED_PER_STEP: Final = 32
"""fastavro looks through symbols and branches from the first one on; so many take as long as reading a value."""


class Mismatch(InvalidRequest):
    """Data that is none of its schema."""


def read_json(schema: AvroType, text: str) -> object:
    """What a text holds in JSON form, checked and complete: a union is a pair of its branch's label and the value.

    Raises `Mismatch`, `TooMuchWork`.
    """
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Mismatch(f"{text[:100]!r} is not JSON: {str(error)[:100]}") from None
    try:
        return _Reader(Budget(), is_default=False).read(schema, value, "")
    except RecursionError:
        raise Mismatch("it is nested too deeply") from None


def check_default(schema: AvroType, value: object, budget: Budget) -> None:
    """Raise `Mismatch` unless a field with this default can be written, `TooMuchWork`."""
    _Reader(budget, is_default=True).read(schema, value, "")


class _Reader:
    """Walks over values and their types."""

    def __init__(self, budget: Budget, *, is_default: bool) -> None:
        self._budget = budget
        self._is_default = is_default
        self._depth = 0

    def read(self, schema: AvroType, value: object, at: str) -> object:
        self._budget.take()
        if self._depth == _MAX_DEPTH:
            raise Mismatch("it is nested too deeply")
        self._depth += 1
        try:
            match schema:
                case Primitive():
                    return _read_primitive(schema.name, value, at)
                case FixedType():
                    return _read_fixed(schema, value, at)
                case EnumType():
                    return self._read_symbol(schema, value, at)
                case ArrayType():
                    if not isinstance(value, list):
                        raise Mismatch(f"{_place(at)}{_shown(value)} is no array")
                    items = cast("list[object]", value)
                    return [self.read(schema.items, item, f"{at}[{place}]") for place, item in enumerate(items)]
                case MapType():
                    entries = _object(value, "map", at)
                    return {key: self.read(schema.values, item, f"{at}.{key[:100]}") for key, item in entries.items()}
                case UnionType() if self._is_default:
                    return self._read_default_of_union(schema, value, at)
                case UnionType():
                    return self._read_union(schema, value, at)
                case RecordType():
                    return self._read_record(schema, _object(value, schema.name, at), at)
        finally:
            self._depth -= 1

    def _read_symbol(self, schema: EnumType, value: object, at: str) -> str:
        place = schema.symbols.get(value) if isinstance(value, str) else None
        if place is None:
            raise Mismatch(f"{_place(at)}{_shown(value)} is no symbol of {schema.name}")
        self._budget.take(place // _SEARCHED_PER_STEP)
        return cast("str", value)

    def _read_union(self, schema: UnionType, value: object, at: str) -> tuple[str, object]:
        label, inner = "null", None
        if value is not None:
            wrapped = cast("dict[str, object]", value) if isinstance(value, dict) else {}
            if len(wrapped) != 1:
                raise Mismatch(
                    f'{_place(at)}{_shown(cast("object", value))} is no union: use null or {{"<branch>": value}} with'
                    f" one of {', '.join(schema.labels)[:300]}"
                )
            ((label, inner),) = wrapped.items()
        place = schema.labels.get(label)
        if place is None:
            raise Mismatch(f"{_place(at)}the union has no {label[:100]}, only {', '.join(schema.labels)[:300]}")
        self._budget.take(place // _SEARCHED_PER_STEP)
        return label, self.read(schema.branches[place], inner, at if value is None else f"{at}.{label}")

    def _read_default_of_union(self, schema: UnionType, value: object, at: str) -> tuple[str, object]:
        """Of the first branch that it fits: older releases of Avro look at the first one only."""
        for branch in schema.branches:
            try:
                return label_of(branch), self.read(branch, value, at)
            except Mismatch:
                continue
        raise Mismatch(f"{_place(at)}{_shown(value)} fits no branch of the union")

    def _read_record(self, schema: RecordType, values: dict[str, Any], at: str) -> dict[str, object]:
        unknown = values.keys() - {field.name for field in schema.fields}
        if unknown:
            raise Mismatch(f"{_place(at)}{schema.name} has no field {min(unknown)[:100]!r}")
        found: dict[str, object] = {}
        for field in schema.fields:
            inner = f"{at}.{field.name}"
            if field.name in values:
                found[field.name] = self.read(field.type, values[field.name], inner)
            elif field.has_default:
                outside, self._is_default = self._is_default, True
                found[field.name] = self.read(field.type, field.default, inner)
                self._is_default = outside
            else:
                raise Mismatch(f"{_place(inner)}it is missing")
        return found


def _read_primitive(name: str, value: object, at: str) -> object:
    if name in BITS:
        limit = 1 << (BITS[name] - 1)
        if not isinstance(value, bool) and isinstance(value, int) and -limit <= value < limit:
            return value
    elif name in FLOATS:
        return _read_float(name, value, at)
    elif name == "bytes":
        return _latin1(value, name, at)
    elif (
        (name == "string" and isinstance(value, str))
        or (name == "boolean" and isinstance(value, bool))
        or (name == "null" and value is None)
    ):
        return value
    raise Mismatch(f"{_place(at)}{_shown(value)} is no {name}")


def _read_float(name: str, value: object, at: str) -> float:
    number = _NOT_FINITE.get(value) if isinstance(value, str) else value
    try:
        if isinstance(number, int | float) and not isinstance(number, bool):
            # What is too large for its four bytes would become infinite.
            struct.pack(FLOATS[name], number)
            return float(number)
    except OverflowError:
        pass
    raise Mismatch(f"{_place(at)}{_shown(value)} is no {name}")


def _read_fixed(schema: FixedType, value: object, at: str) -> bytes:
    data = _latin1(value, schema.name, at)
    if len(data) != schema.size:
        raise Mismatch(f"{_place(at)}{schema.name} has {schema.size} bytes, not {len(data)}")
    return data


def _latin1(value: object, name: str, at: str) -> bytes:
    try:
        if isinstance(value, str):
            return value.encode("latin-1")
    except UnicodeEncodeError:
        pass
    raise Mismatch(f"{_place(at)}{_shown(value)} is no {name}: use a string of the characters U+0000 to U+00FF")


def _object(value: object, name: str, at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Mismatch(f"{_place(at)}{_shown(value)} is no {name}")
    return cast("dict[str, Any]", value)


def _place(at: str) -> str:
    return f"{at.lstrip('.')}: " if at else ""


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode()[:100]

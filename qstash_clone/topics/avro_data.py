"""Data of an Avro schema: from its JSON form to its binary form, and whether bytes are a binary form.

The JSON form is Avro's own: a union is `null` or `{"<branch>": value}`, bytes are a string of the characters U+0000 to
U+00FF. A field that is missing takes its default, which Avro's Java library refuses; one that the schema does not have
is refused.
"""

import struct
from typing import Any, Final, cast

import msgspec

from qstash_clone.errors import InvalidRequest
from qstash_clone.topics.avro_types import (
    ArrayType,
    AvroType,
    Budget,
    EnumType,
    Field,
    FixedType,
    MapType,
    Primitive,
    RecordType,
    UnionType,
)

_BITS: Final = {"int": 32, "long": 64}
_FLOATS: Final = {"float": "<f", "double": "<d"}
_NOT_FINITE: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class Mismatch(InvalidRequest):
    """Data that is none of its schema."""


def encode_json(schema: AvroType, text: str) -> bytes:
    """The binary form of what a text holds in JSON form. Raises `Mismatch`."""
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Mismatch(f"{text[:100]!r} is not JSON: {str(error)[:100]}") from None
    encoder = _Encoder(Budget(), is_default=False)
    try:
        encoder.write(schema, value, "")
    except RecursionError:
        raise Mismatch("it is nested too deeply") from None
    return bytes(encoder.out)


def check_default(schema: AvroType, value: object, budget: Budget) -> None:
    """Raise `Mismatch` unless a field with this default can be written, `TooMuchWork`."""
    _Encoder(budget, is_default=True).write(schema, value, "")


class _Encoder:
    """Appends the binary form of values."""

    def __init__(self, budget: Budget, *, is_default: bool) -> None:
        self.out = bytearray()
        self._budget = budget
        self._is_default = is_default

    def write(self, schema: AvroType, value: object, at: str) -> None:
        self._budget.take()
        match schema:
            case Primitive():
                self._write_primitive(schema.name, value, at)
            case FixedType():
                data = _latin1(value, schema.name, at)
                if len(data) != schema.size:
                    raise Mismatch(f"{_place(at)}{schema.name} has {schema.size} bytes, not {len(data)}")
                self.out += data
            case EnumType():
                index = schema.symbols.get(value) if isinstance(value, str) else None
                if index is None:
                    raise Mismatch(f"{_place(at)}{_shown(value)} is no symbol of {schema.name}")
                self._write_long(index)
            case ArrayType():
                if not isinstance(value, list):
                    raise Mismatch(f"{_place(at)}{_shown(value)} is no array")
                items = cast("list[object]", value)
                if items:
                    self._write_long(len(items))
                for place, item in enumerate(items):
                    self.write(schema.items, item, f"{at}[{place}]")
                self._write_long(0)
            case MapType():
                entries = _object(value, "map", at)
                if entries:
                    self._write_long(len(entries))
                for key, item in entries.items():
                    self._write_bytes(key.encode())
                    self.write(schema.values, item, f"{at}.{key[:100]}")
                self._write_long(0)
            case UnionType():
                self._write_union(schema, value, at)
            case RecordType():
                self._write_record(schema, _object(value, schema.name, at), at)

    def _write_primitive(self, name: str, value: object, at: str) -> None:
        if name in _BITS:
            limit = 1 << (_BITS[name] - 1)
            if isinstance(value, bool) or not isinstance(value, int) or not -limit <= value < limit:
                raise Mismatch(f"{_place(at)}{_shown(value)} is no {name}")
            self._write_long(value)
        elif name in _FLOATS:
            self._write_float(name, value, at)
        elif name == "string" and isinstance(value, str):
            self._write_bytes(value.encode())
        elif name == "bytes":
            self._write_bytes(_latin1(value, name, at))
        elif name == "boolean" and isinstance(value, bool):
            self.out.append(value)
        elif name != "null" or value is not None:
            raise Mismatch(f"{_place(at)}{_shown(value)} is no {name}")

    def _write_float(self, name: str, value: object, at: str) -> None:
        number = _NOT_FINITE.get(value) if isinstance(value, str) else value
        try:
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise OverflowError
            self.out += struct.pack(_FLOATS[name], number)
        except OverflowError:
            raise Mismatch(f"{_place(at)}{_shown(value)} is no {name}") from None

    def _write_union(self, schema: UnionType, value: object, at: str) -> None:
        if self._is_default:
            self._write_default_of_union(schema, value, at)
            return
        label, inner = "null", None
        if value is not None:
            wrapped = cast("dict[str, object]", value) if isinstance(value, dict) else {}
            if len(wrapped) != 1:
                raise Mismatch(
                    f'{_place(at)}{_shown(cast("object", value))} is no union: use null or {{"<branch>": value}} with'
                    f" one of {', '.join(schema.labels)[:300]}"
                )
            ((label, inner),) = wrapped.items()
        index = schema.labels.get(label)
        if index is None:
            raise Mismatch(f"{_place(at)}the union has no {label[:100]}, only {', '.join(schema.labels)[:300]}")
        self._write_long(index)
        self.write(schema.branches[index], inner, at if value is None else f"{at}.{label}")

    def _write_default_of_union(self, schema: UnionType, value: object, at: str) -> None:
        """Of the first branch that it fits: older releases of Avro look at the first one only."""
        before = len(self.out)
        for index, branch in enumerate(schema.branches):
            self._write_long(index)
            try:
                self.write(branch, value, at)
            except Mismatch:
                del self.out[before:]
                continue
            return
        raise Mismatch(f"{_place(at)}{_shown(value)} fits no branch of the union")

    def _write_record(self, schema: RecordType, values: dict[str, Any], at: str) -> None:
        unknown = values.keys() - {field.name for field in schema.fields}
        if unknown:
            raise Mismatch(f"{_place(at)}{schema.name} has no field {min(unknown)[:100]!r}")
        for field in schema.fields:
            inner = f"{at}.{field.name}"
            if field.name in values:
                self.write(field.type, values[field.name], inner)
            elif field.has_default:
                self._write_default(field, inner)
            else:
                raise Mismatch(f"{_place(inner)}it is missing")

    def _write_default(self, field: Field, at: str) -> None:
        outside, self._is_default = self._is_default, True
        self.write(field.type, field.default, at)
        self._is_default = outside

    def _write_bytes(self, data: bytes) -> None:
        self._write_long(len(data))
        self.out += data

    def _write_long(self, number: int) -> None:
        """Zig-zag, seven bits a byte, the lowest first."""
        rest = (number << 1) ^ (number >> 63)
        while rest > 0x7F:
            self.out.append(rest & 0x7F | 0x80)
            rest >>= 7
        self.out.append(rest)


def check_binary(schema: AvroType, data: bytes) -> None:
    """Raise `Mismatch` unless the bytes are exactly one datum of the schema."""
    reader = _Reader(data)
    try:
        reader.skip(schema)
    except RecursionError:
        raise Mismatch("it is nested too deeply") from None
    if reader.at != len(data):
        raise Mismatch(f"the datum ends at byte {reader.at} of {len(data)}")


class _Reader:
    """Walks over binary data."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._budget = Budget()
        self.at = 0

    def skip(self, schema: AvroType) -> None:
        self._budget.take()
        match schema:
            case Primitive():
                self._skip_primitive(schema.name)
            case FixedType():
                self._take(schema.size)
            case EnumType():
                self._read_index(len(schema.symbols), schema.name)
            case ArrayType():
                self._skip_blocks(None, schema.items)
            case MapType():
                self._skip_blocks(Primitive("string"), schema.values)
            case UnionType():
                self.skip(schema.branches[self._read_index(len(schema.branches), "the union")])
            case RecordType():
                for field in schema.fields:
                    self.skip(field.type)

    def _skip_primitive(self, name: str) -> None:
        if name in _BITS:
            self._read_long(_BITS[name])
        elif name in _FLOATS:
            self._take(struct.calcsize(_FLOATS[name]))
        elif name in ("bytes", "string"):
            data = self._take(self._read_long(64))
            if name == "string":
                try:
                    data.decode()
                except UnicodeDecodeError:
                    raise Mismatch(f"the string before byte {self.at} is not UTF-8") from None
        elif name == "boolean" and self._take(1) not in (b"\0", b"\1"):
            raise Mismatch(f"byte {self.at - 1} is no boolean")

    def _skip_blocks(self, key: AvroType | None, item: AvroType) -> None:
        while count := self._read_long(64):
            end = None
            if count < 0:
                # The number of bytes follows.
                count, size = -count, self._read_long(64)
                end = self.at + size
            self._budget.take(count)
            for _ in range(count):
                if key is not None:
                    self.skip(key)
                self.skip(item)
            if end is not None and self.at != end:
                raise Mismatch(f"the block before byte {self.at} has another length than it says")

    def _read_index(self, count: int, of: str) -> int:
        index = self._read_long(32)
        if not 0 <= index < count:
            raise Mismatch(f"{index} before byte {self.at} is no index into {of}")
        return index

    def _read_long(self, bits: int) -> int:
        number, shift = 0, 0
        while True:
            (byte,) = self._take(1)
            number |= (byte & 0x7F) << shift
            if number >> bits:
                raise Mismatch(f"the number before byte {self.at} has more than {bits} bits")
            if byte < 0x80:
                return (number >> 1) ^ -(number & 1)
            shift += 7
            if shift >= (bits + 6) // 7 * 7:
                raise Mismatch(f"the number before byte {self.at} has more than {bits} bits")

    def _take(self, size: int) -> bytes:
        if not 0 <= size <= len(self._data) - self.at:
            raise Mismatch(f"the datum ends before byte {self.at + max(size, 0)}, which it needs")
        self.at += size
        return self._data[self.at - size : self.at]


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

"""The binary form of Avro data: fastavro writes it; whether bytes that came from outside are one is checked here.

fastavro's reader is no such check. It recurses in C without a limit, so that some kilobytes end the process, it reads
as many items as a number says, and it takes bytes that other readers refuse.
"""

import struct
from io import BytesIO
from typing import Any, Final

from qstash_clone.topics.avro_data import Mismatch
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
)

_FIELD: Final = "datum"


class BinaryWriter:
    """Writes data of one type."""

    def __init__(self, schema: AvroType) -> None:
        self._type = schema
        self._schema: Any = None

    def write(self, datum: object) -> bytes:
        """The binary form of what was read from JSON. Raises `Mismatch` for a schema that is nested too deeply."""
        library = _fastavro()
        if self._schema is None:
            try:
                self._schema = library.parse_schema(_schema_for_fastavro(self._type))
            except RecursionError:
                raise Mismatch("the schema is nested too deeply") from None
        out = BytesIO()
        library.schemaless_writer(out, self._schema, {_FIELD: datum})
        return out.getvalue()


def _fastavro() -> Any:
    """Its types are incomplete. Imported by the first who writes, because most never do."""
    import fastavro

    return fastavro


def _schema_for_fastavro(schema: AvroType) -> dict[str, Any]:
    """A record of one field, which is written as the field is: fastavro parses everything else anew for each datum."""
    names: set[str] = set()
    described = _describe(schema, names)
    name = "_"
    while name in names:
        name += "_"
    return {"type": "record", "name": name, "namespace": "", "fields": [{"name": _FIELD, "type": described}]}


def _describe(schema: AvroType, names: set[str]) -> Any:
    """A type as JSON, with full names; what is in `names` is defined already.

    Not the text that was parsed: fastavro refuses there some parameters of logical types, defaults and references that
    are right, and obeys properties that are its own.
    """
    match schema:
        case Primitive():
            return schema.name
        case ArrayType():
            return {"type": "array", "items": _describe(schema.items, names)}
        case MapType():
            return {"type": "map", "values": _describe(schema.values, names)}
        case UnionType():
            return [_describe(branch, names) for branch in schema.branches]
        case FixedType() | EnumType() | RecordType():
            if schema.name in names:
                return schema.name
            names.add(schema.name)
            # A name with dots has its namespace in it; one without has none, wherever it stands.
            return {"name": schema.name, "namespace": "", **_describe_inside(schema, names)}


def _describe_inside(schema: FixedType | EnumType | RecordType, names: set[str]) -> dict[str, Any]:
    match schema:
        case FixedType():
            return {"type": "fixed", "size": schema.size}
        case EnumType():
            return {"type": "enum", "symbols": list(schema.symbols)}
        case RecordType():
            fields = [{"name": field.name, "type": _describe(field.type, names)} for field in schema.fields]
            return {"type": "record", "fields": fields}


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
        if name in BITS:
            self._read_long(BITS[name])
        elif name in FLOATS:
            self._take(struct.calcsize(FLOATS[name]))
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

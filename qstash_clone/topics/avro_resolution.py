"""Whether data of one Avro schema can be read with another, by the rules of schema resolution of the specification."""

from typing import Final

from qstash_clone.topics.avro_types import (
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

_PROMOTIONS: Final = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
    "string": ("bytes",),
    "bytes": ("string",),
}


def why_unreadable(reader: AvroType, writer: AvroType) -> str | None:
    """The first reason why something that was written cannot be read; None if everything can be.

    Raises `TooMuchWork`.
    """
    return _Check().compare(reader, writer, "")


class _Check:
    """Compares pairs of types; those of two records once, because a record may contain itself."""

    def __init__(self) -> None:
        self._budget = Budget()
        self._readable: dict[tuple[int, int], None] = {}
        """Pairs that were found to be readable, or are taken for it while they are looked at; in that order."""
        self._unreadable: dict[tuple[int, int], str] = {}

    def compare(self, reader: AvroType, writer: AvroType, at: str) -> str | None:
        self._budget.take()
        if isinstance(writer, UnionType):
            return next(filter(None, (self.compare(reader, branch, at) for branch in writer.branches)), None)
        if isinstance(reader, UnionType):
            if any(self.compare(branch, writer, at) is None for branch in reader.branches):
                return None
            return f"{at or '/'}: the union of the reader has no branch for {label_of(writer)}"
        match reader, writer:
            case RecordType(), RecordType():
                return self._compare_records(reader, writer, at)
            case EnumType(), EnumType():
                return self._compare_enums(reader, writer, at)
            case FixedType(), FixedType():
                if reader.size != writer.size:
                    return f"{at or '/'}: {reader.name} has {reader.size} bytes for the reader, {writer.size} written"
                return _compare_names(reader, writer, at)
            case ArrayType(), ArrayType():
                return self.compare(reader.items, writer.items, f"{at}/items")
            case MapType(), MapType():
                return self.compare(reader.values, writer.values, f"{at}/values")
            case Primitive(), Primitive():
                if reader.name == writer.name or reader.name in _PROMOTIONS.get(writer.name, ()):
                    return None
            case _:
                pass
        return f"{at or '/'}: {label_of(writer)} cannot be read as {label_of(reader)}"

    def _compare_records(self, reader: RecordType, writer: RecordType, at: str) -> str | None:
        pair = id(reader), id(writer)
        if pair in self._readable:
            return None
        if pair in self._unreadable:
            return self._unreadable[pair]
        before = len(self._readable)
        self._readable[pair] = None
        reason = _compare_names(reader, writer, at) or self._compare_fields(reader, writer, at)
        if reason is not None:
            # What was found readable since then may have been so only because this pair was taken for it.
            while len(self._readable) > before:
                self._readable.popitem()
            self._unreadable[pair] = reason
        return reason

    def _compare_fields(self, reader: RecordType, writer: RecordType, at: str) -> str | None:
        written = {field.name: field for field in writer.fields}
        for field in reader.fields:
            self._budget.take()
            inner = f"{at}/{field.name}"
            found = next((written[name] for name in (field.name, *field.aliases) if name in written), None)
            if found is None:
                if not field.has_default:
                    return f"{inner}: the field is not written, and has no default"
            elif (reason := self.compare(field.type, found.type, inner)) is not None:
                return reason
        return None

    def _compare_enums(self, reader: EnumType, writer: EnumType, at: str) -> str | None:
        unknown = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
        if unknown and reader.default is None:
            return f"{at or '/'}: {reader.name} has no symbol {unknown[0]} for the reader, and no default"
        return _compare_names(reader, writer, at)


def _compare_names(
    reader: RecordType | EnumType | FixedType, writer: RecordType | EnumType | FixedType, at: str
) -> str | None:
    """Names match without their namespaces; aliases with theirs."""
    if reader.name.rpartition(".")[2] == writer.name.rpartition(".")[2] or writer.name in reader.aliases:
        return None
    return f"{at or '/'}: {writer.name} cannot be read as {reader.name}"

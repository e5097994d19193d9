"""The types that an Avro schema is made of. A record may contain itself, so types have no equality but identity."""

from typing import Final

import msgspec

from qstash_clone.errors import InvalidRequest

PRIMITIVES: Final = frozenset(("null", "boolean", "int", "long", "float", "double", "bytes", "string"))

BITS: Final = {"int": 32, "long": 64}
FLOATS: Final = {"float": "<f", "double": "<d"}
"""Each with its binary form, as `struct` names it."""

MAX_STEPS: Final = 200_000


class TooMuchWork(InvalidRequest):
    """A schema or data whose parts multiply: a few bytes of either can stand for any number of values."""


class Budget:
    """How much may still be done for one request."""

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self._steps = steps

    def take(self, steps: int = 1) -> None:
        """Raises `TooMuchWork`."""
        self._steps -= steps
        if self._steps < 0:
            raise TooMuchWork(f"the schema and its data stand for more than {MAX_STEPS} values")


class Primitive(msgspec.Struct, frozen=True, eq=False):
    name: str


class FixedType(msgspec.Struct, frozen=True, eq=False):
    name: str
    """With its namespace, as those of enums and records."""
    size: int
    aliases: list[str]


class EnumType(msgspec.Struct, frozen=True, eq=False):
    name: str
    symbols: dict[str, int]
    """Each with its place."""
    default: str | None
    """What a reader takes for a symbol that it does not know."""
    aliases: list[str]


class ArrayType(msgspec.Struct, frozen=True, eq=False):
    items: "AvroType"


class MapType(msgspec.Struct, frozen=True, eq=False):
    values: "AvroType"


class UnionType(msgspec.Struct, frozen=True, eq=False):
    branches: "list[AvroType]"
    labels: dict[str, int]
    """What names each branch in JSON, with its place."""


class Field(msgspec.Struct, frozen=True, eq=False):
    name: str
    type: "AvroType"
    has_default: bool
    default: object
    """As JSON; that of a union is not wrapped in the name of its branch."""
    aliases: list[str]


class RecordType(msgspec.Struct, frozen=True, eq=False):
    name: str
    fields: list[Field]
    aliases: list[str]


AvroType = Primitive | FixedType | EnumType | ArrayType | MapType | UnionType | RecordType


def label_of(branch: AvroType) -> str:
    """What names a branch of a union in JSON: the name of a named type, else the kind."""
    match branch:
        case Primitive() | FixedType() | EnumType() | RecordType():
            return branch.name
        case ArrayType():
            return "array"
        case MapType():
            return "map"
        case UnionType():
            return "union"

"""What a request takes and is answered with, as plain values that `document` turns into OpenAPI."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Schema = dict[str, Any]
"""JSON Schema as it is."""

Ms = Annotated[int, Meta(description="Milliseconds of Unix time.")]
HeaderMap = Annotated[
    dict[str, list[str]], Meta(description="Header names in canonical spelling, each with its values.")
]


class AnyOf(msgspec.Struct, frozen=True):
    """One of several shapes; a union of Python types may hold one object only."""

    shapes: tuple[Any, ...]


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the path, of the query, or a header."""

    name: str
    place: Literal["path", "query", "header"]
    text: str
    schema: Schema = msgspec.field(default_factory=lambda: {"type": "string"})
    shared_as: str = ""
    """Its name among the components, if several operations take it."""
    spans_segments: bool = False
    """A part of the path that may hold slashes."""


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent."""

    text: str
    shape: Any
    """A Python type, `AnyOf` or a `Schema`."""
    media_type: str = "application/json"
    is_required: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What comes back with one status."""

    text: str
    shape: Any
    media_type: str = "application/json"


class Access(StrEnum):
    """Which credential an operation asks for; it decides which refusals are possible everywhere."""

    NOBODY_ASKS = "none"
    PUBLISHING = "publishing"
    MANAGEMENT = "management"
    DEV = "dev"
    TOPICS = "topics"


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """What the operations of one API have in common."""

    name: str
    """The first word of the names of its error answers."""
    error: Any
    """Their shape."""
    media_type: str
    security: tuple[str, ...]
    has_head: bool
    """Whether `HEAD` is answered where `GET` is."""
    error_headers: tuple[str, ...] = ()
    """What every error answer has besides the usual headers."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path."""

    id: str
    tag: str
    summary: str
    text: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    answers: Mapping[int, Answer]
    errors: tuple[int, ...] = ()
    """Statuses from 400 on that are answered with the error of the family, besides those that go with the access."""
    access: Access = Access.MANAGEMENT
    is_extension: bool = False
    """QStash does not have it."""
    family: Family | None = None
    """None: QStash's API."""


Operations = Mapping[str, Operation]
"""By method and path, `GET /v2/messages/{messageId}`."""

NAME: Schema = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,256}$"}

DONE = Answer(text="Done.", shape={"type": "object", "maxProperties": 0})
"""The answer of what has nothing to tell."""


def path_parameter(name: str, text: str, *, spans_segments: bool = False) -> Parameter:
    """A part of the path; percent-encoded where it holds a slash, unless it may span segments."""
    return Parameter(name=name, place="path", text=text, spans_segments=spans_segments)


def query_parameter(name: str, text: str, schema: Schema) -> Parameter:
    """A parameter that may be left out."""
    return Parameter(name=name, place="query", text=text, schema=schema)

"""The schema registry; only its first prefix is described, because generated clients need one."""

from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

from msgspec import Meta

from qstash_clone.api.openapi.description import (
    Access,
    Answer,
    Body,
    Family,
    Operation,
    Operations,
    path_parameter,
    query_parameter,
)
from qstash_clone.topics.schemas import LEVELS, Level

_MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"

_SchemaId = Annotated[int, Meta(ge=1, description="Of all subjects together.")]
_Version = Annotated[int, Meta(ge=1, description="Counted from 1 in each subject.")]
_SchemaText = Annotated[str, Meta(description="An Avro schema, JSON in a string.")]
_Levels = Annotated[str, Meta(description=", ".join(f"`{level}`" for level in LEVELS) + ".")]


class RegistryError(TypedDict):
    """Every answer from status 400 on."""

    error_code: Annotated[int, Meta(description="The status, or a number of five digits that begins with it.")]
    message: Annotated[str, Meta(min_length=1)]


class SchemaToRegister(TypedDict):
    """A schema."""

    schema: _SchemaText
    schemaType: NotRequired[Annotated[str | None, Meta(description="`AVRO`.")]]


class RegisteredSchema(TypedDict):
    """Under which id a schema is kept."""

    id: _SchemaId


class SchemaOfId(TypedDict):
    """A schema."""

    schema: _SchemaText


class SchemaVersion(TypedDict):
    """A version of a subject."""

    subject: str
    version: _Version
    id: _SchemaId
    schema: _SchemaText


class SchemaUse(TypedDict):
    """A subject and a version that have a schema."""

    subject: str
    version: _Version


class LevelToSet(TypedDict):
    """A level of compatibility."""

    compatibility: _Levels


class CompatibilityLevel(TypedDict):
    """A level of compatibility."""

    compatibilityLevel: Level


class SetLevel(TypedDict):
    """A level of compatibility that was set."""

    compatibility: Level


class Compatibility(TypedDict):
    """Whether a schema gets along with those of a subject."""

    is_compatible: bool
    messages: NotRequired[Annotated[list[str], Meta(description="Why not; with `verbose=true`.")]]


class RegistryMode(TypedDict):
    """What the registry does; it cannot be changed."""

    mode: Literal["READWRITE"]


_FAMILY: Final = Family(
    name="Registry", error=RegistryError, media_type=_MEDIA_TYPE, security=("basic", "bearer"), has_head=False
)
_SUBJECT: Final = path_parameter("subject", "1 to 512 characters, percent-encoded.")
_VERSION: Final = path_parameter("version", "A number, or `latest`.")
_ID: Final = path_parameter("id", "The id of a schema.")
_DELETED: Final = query_parameter("deleted", "Also what is deleted, though not for good.", {"type": "boolean"})
_PERMANENT: Final = query_parameter("permanent", "For good; it must be deleted already.", {"type": "boolean"})
_VERBOSE: Final = query_parameter("verbose", "With reasons.", {"type": "boolean"})
_GLOBAL: Final = query_parameter(
    "defaultToGlobal", "That of all subjects, where this one has none.", {"type": "boolean"}
)
_SCHEMA_BODY: Final = Body(text="At most 1 MiB.", shape=SchemaToRegister, is_required=True)
_LEVEL_BODY: Final = Body(text="The level.", shape=LevelToSet, is_required=True)
_COMPATIBILITY_SUMMARY: Final = "Whether a schema could be registered"
_ANY_JSON: Final[Any] = {}


def _operation(
    name: str, summary: str, shape: Any, *parameters: Any, body: Body | None = None, errors: tuple[int, ...] = ()
) -> Operation:
    return Operation(
        id=name,
        tag="Schema registry",
        summary=summary,
        text="The same under `/confluent`.",
        parameters=parameters,
        body=body,
        answers={200: Answer(text="Done.", shape=shape, media_type=_MEDIA_TYPE)},
        errors=errors,
        access=Access.TOPICS,
        is_extension=True,
        family=_FAMILY,
    )


_FOUND: Final = (400, 404)
_VERSIONED: Final = (400, 404, 422)
_WITH_BODY: Final = (400, 404, 413, 422)
OPERATIONS: Final[Operations] = {
    "GET /schema-registry": _operation(
        "getRegistry", "Whether the registry is there", {"type": "object", "maxProperties": 0}
    ),
    "GET /schema-registry/subjects": _operation(
        "listSubjects",
        "The subjects that the credential is for",
        list[str],
        query_parameter("subjectPrefix", "How their names begin.", {"type": "string"}),
        _DELETED,
        errors=(400,),
    ),
    "POST /schema-registry/subjects/{subject}": _operation(
        "findSchema",
        "The version of a subject that has a schema",
        SchemaVersion,
        _SUBJECT,
        _DELETED,
        body=_SCHEMA_BODY,
        errors=_WITH_BODY,
    ),
    "DELETE /schema-registry/subjects/{subject}": _operation(
        "deleteSubject", "Delete all versions of a subject", list[_Version], _SUBJECT, _PERMANENT, errors=_FOUND
    ),
    "GET /schema-registry/subjects/{subject}/versions": _operation(
        "listVersions", "The versions of a subject", list[_Version], _SUBJECT, _DELETED, errors=_FOUND
    ),
    "POST /schema-registry/subjects/{subject}/versions": _operation(
        "registerSchema",
        "Give a schema an id, and a subject a version with it",
        RegisteredSchema,
        _SUBJECT,
        body=_SCHEMA_BODY,
        errors=(400, 409, 413, 422),
    ),
    "GET /schema-registry/subjects/{subject}/versions/{version}": _operation(
        "getVersion", "A version of a subject", SchemaVersion, _SUBJECT, _VERSION, _DELETED, errors=_VERSIONED
    ),
    "GET /schema-registry/subjects/{subject}/versions/{version}/schema": _operation(
        "getVersionSchema", "Its schema, by itself", _ANY_JSON, _SUBJECT, _VERSION, _DELETED, errors=_VERSIONED
    ),
    "DELETE /schema-registry/subjects/{subject}/versions/{version}": _operation(
        "deleteVersion", "Delete a version", _Version, _SUBJECT, _VERSION, _PERMANENT, errors=_VERSIONED
    ),
    "GET /schema-registry/schemas/types": _operation("listSchemaTypes", "Kinds of schemas", list[Literal["AVRO"]]),
    "GET /schema-registry/schemas/ids/{id}": _operation("getSchema", "A schema", SchemaOfId, _ID, errors=_FOUND),
    "GET /schema-registry/schemas/ids/{id}/schema": _operation(
        "getSchemaText", "A schema, by itself", _ANY_JSON, _ID, errors=_FOUND
    ),
    "GET /schema-registry/schemas/ids/{id}/subjects": _operation(
        "listSubjectsOfSchema", "The subjects that have a schema", list[str], _ID, _DELETED, errors=_FOUND
    ),
    "GET /schema-registry/schemas/ids/{id}/versions": _operation(
        "listVersionsOfSchema", "The versions that have a schema", list[SchemaUse], _ID, _DELETED, errors=_FOUND
    ),
    "GET /schema-registry/config": _operation("getLevel", "The level of subjects that have none", CompatibilityLevel),
    "PUT /schema-registry/config": _operation(
        "setLevel", "Set the level of subjects that have none", SetLevel, body=_LEVEL_BODY, errors=(400, 413, 422)
    ),
    "DELETE /schema-registry/config": _operation(
        "clearLevel", "Set it back to `NONE`; answers what it was", CompatibilityLevel
    ),
    "GET /schema-registry/config/{subject}": _operation(
        "getLevelOfSubject", "The level of a subject", CompatibilityLevel, _SUBJECT, _GLOBAL, errors=_FOUND
    ),
    "PUT /schema-registry/config/{subject}": _operation(
        "setLevelOfSubject",
        "Set the level of a subject",
        SetLevel,
        _SUBJECT,
        body=_LEVEL_BODY,
        errors=(400, 413, 422),
    ),
    "DELETE /schema-registry/config/{subject}": _operation(
        "clearLevelOfSubject", "Take it away; answers what it was", CompatibilityLevel, _SUBJECT, errors=_FOUND
    ),
    "POST /schema-registry/compatibility/subjects/{subject}/versions": _operation(
        "checkCompatibility",
        _COMPATIBILITY_SUMMARY,
        Compatibility,
        _SUBJECT,
        _VERBOSE,
        body=_SCHEMA_BODY,
        errors=(400, 413, 422),
    ),
    "POST /schema-registry/compatibility/subjects/{subject}/versions/{version}": _operation(
        "checkCompatibilityWithVersion",
        f"{_COMPATIBILITY_SUMMARY} after a version",
        Compatibility,
        _SUBJECT,
        _VERSION,
        _VERBOSE,
        body=_SCHEMA_BODY,
        errors=_WITH_BODY,
    ),
    "GET /schema-registry/mode": _operation("getMode", "Whether schemas can be registered", RegistryMode),
}

"""The two producer APIs of IBM Event Streams."""

from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

from msgspec import Meta

from qstash_clone.api.openapi.description import (
    Access,
    Answer,
    Body,
    Family,
    Operation,
    Operations,
    Parameter,
    path_parameter,
    query_parameter,
)
from qstash_clone.api.openapi.kafka_produce import JSON_UTF8, Offset, PartitionNumber

_Time = Annotated[str, Meta(description="RFC 3339, UTC, milliseconds.", pattern=r"^\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z$")]
_Trace = Annotated[str, Meta(description="Names the error, in the log too.", pattern="^[0-9a-f-]{36}$")]
_Text = Annotated[str, Meta(min_length=1)]


class EventStreamsTarget(TypedDict):
    """What of the request is at fault."""

    type: Literal["field", "parameter", "header"]
    name: str


class EventStreamsFault(TypedDict):
    """An error of the API v2."""

    code: _Text
    message: _Text
    more_info: str
    target: NotRequired[EventStreamsTarget]


class EventStreamsError(TypedDict):
    """Every answer of the API v2 from status 400 on."""

    trace: _Trace
    error: EventStreamsFault


class EventStreamsHeader(TypedDict):
    """A header of a record; names may repeat."""

    name: _Text
    value: Annotated[str, Meta(description="In base64.")]


class EventStreamsPayload(TypedDict):
    """A key or a value."""

    type: Annotated[str, Meta(description="`text`, `binary` (base64), `json` or `avro`.")]
    data: Annotated[Any, Meta(description="A string; for `json` also JSON in its place.")]
    schema: NotRequired[Annotated[str | None, Meta(description="For `avro`: the schema, JSON in a string.")]]
    schema_id: NotRequired[Annotated[int | None, Meta(description="For `avro`, in the place of `schema`.")]]
    schema_name_strategy: NotRequired[
        Annotated[str | None, Meta(description="For `avro`: `topic`, `record` or `topicrecord`.")]
    ]


class EventStreamsRecord(TypedDict):
    """One record."""

    headers: NotRequired[list[EventStreamsHeader] | None]
    key: NotRequired[EventStreamsPayload | None]
    value: EventStreamsPayload


class EventStreamsStoredPayload(TypedDict):
    """How a key or a value is stored."""

    type: Literal["text", "binary", "json", "avro"]
    schema_id: NotRequired[int]
    schema_artifact_id: NotRequired[str]


class EventStreamsStored(TypedDict):
    """Where a record is stored."""

    topic_name: str
    partition_id: PartitionNumber
    offset: Offset
    timestamp: _Time
    key: NotRequired[EventStreamsStoredPayload]
    value: EventStreamsStoredPayload


class LegacyFault(TypedDict):
    """An error of the older API, as its version 1.0.0 has it."""

    error_code: int
    message: _Text
    incident: _Trace
    kafka_error_code: NotRequired[int]
    topic: NotRequired[str]
    schema: NotRequired[str]


class LegacyError(TypedDict):
    """Every answer of the older API from status 400 on; 1.1.0 has two of the fields at the top."""

    error_code: int
    message: _Text
    error: LegacyFault


class LegacyMetadata(TypedDict):
    """Where a record is stored."""

    topic: str
    timestamp: _Time
    partition: PartitionNumber
    offset: Offset


class LegacyStored(TypedDict):
    """The answer of the older API."""

    metadata: LegacyMetadata


_V2: Final = Family(
    name="EventStreams",
    error=EventStreamsError,
    media_type=JSON_UTF8,
    security=("bearer",),
    has_head=False,
    error_headers=("X-Trace-Id",),
)
_V1: Final = Family(
    name="LegacyEventStreams",
    error=LegacyError,
    media_type=JSON_UTF8,
    security=("bearer", "basic", "authToken"),
    has_head=False,
    error_headers=("X-Trace-Id",),
)
_TOPIC: Final = path_parameter("topicName", "The topic.")
_ERRORS: Final = (400, 404, 415)


def _too_slow(shape: Any) -> Answer:
    return Answer(
        text="The store did not confirm in time, and the message may be stored; or the request did not arrive in time.",
        shape=shape,
        media_type=JSON_UTF8,
    )


OPERATIONS: Final[Operations] = {
    "POST /v2/topics/{topicName}/records": Operation(
        id="produceRecord",
        tag="Kafka (IBM Event Streams)",
        summary="Store a record that is described in JSON",
        parameters=(
            _TOPIC,
            query_parameter("serializer", "Needed for `avro`.", {"type": "string", "enum": ["confluent"]}),
        ),
        body=Body(text="The record; at most 65,536 bytes.", shape=EventStreamsRecord, is_required=True),
        answers={
            200: Answer(text="Stored durably.", shape=EventStreamsStored, media_type=JSON_UTF8),
            408: _too_slow(EventStreamsError),
        },
        errors=(*_ERRORS, 413),
        access=Access.TOPICS,
        is_extension=True,
        family=_V2,
    ),
    "POST /topics/{topicName}/records": Operation(
        id="produceLegacyRecord",
        tag="Kafka (IBM Event Streams)",
        summary="Store a body as the value of a record",
        parameters=(
            _TOPIC,
            Parameter(
                name="Content-Type",
                place="header",
                text="`text/plain`, `application/octet-stream`, `application/json`, `application/xml`, `text/xml`, or "
                "`vnd.ibm-event-streams.` followed by `json`, `binary` or `text` and `.v1`.",
            ),
            query_parameter("key", "The key of the record; may be empty.", {"type": "string"}),
            query_parameter(
                "keyType", "`binary`: the key is in base 16.", {"type": "string", "enum": ["text", "binary"]}
            ),
            query_parameter(
                "headers", "`name:value` pairs separated by commas, the values in base 16.", {"type": "string"}
            ),
            query_parameter("schemaname", "The subject of the schema of the value.", {"type": "string"}),
            query_parameter("schemaversion", "Its version, or `latest`.", {"type": "string"}),
            query_parameter("schemavalidation", "Whether the body must match the schema.", {"type": "boolean"}),
        ),
        body=Body(text="1 to 65,536 bytes.", shape={}, media_type="*/*", is_required=True),
        answers={
            200: Answer(text="Stored durably.", shape=LegacyStored, media_type=JSON_UTF8),
            408: _too_slow(LegacyError),
        },
        errors=(*_ERRORS, 411),
        access=Access.TOPICS,
        is_extension=True,
        family=_V1,
    ),
}

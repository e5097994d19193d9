"""IBM's REST producer API v2: one record in JSON; see docs/protocol/kafka-event-streams.md."""

from typing import Any, Final

from qstash_clone.api.requests import Head
from qstash_clone.api.topics.authorization import read_authorization
from qstash_clone.api.topics.calls import Answer, Call, json_answer
from qstash_clone.api.topics.credentials import Credentials, Grant, Right
from qstash_clone.api.topics.event_streams import (
    MAX_BODY_BYTES,
    MAX_KEY_BYTES,
    describe_error,
    find_grant,
    media_type_of,
    new_trace,
    shown_time,
)
from qstash_clone.api.topics.event_streams_record import Payload, Refused, parse_record
from qstash_clone.api.topics.queries import decode, first_value
from qstash_clone.api.topics.table import TopicApi, TopicRow
from qstash_clone.errors import Forbidden, InvalidRequest, Unauthorized, UnsupportedMediaType
from qstash_clone.topics.avro_data import Mismatch
from qstash_clone.topics.avro_schema import AvroSchema, InvalidSchema
from qstash_clone.topics.avro_types import TooMuchWork
from qstash_clone.topics.producing import Producer, ToProduce
from qstash_clone.topics.records import Record, is_topic_name
from qstash_clone.topics.schemas import Incompatible, ParsedSchemas, SchemaRegistry, UnknownSchema
from qstash_clone.topics.subjects import Part, name_subject

MAX_URL_BYTES: Final = 16 * 1024
_MAX_TOPIC_CHARACTERS: Final = 200
_FRAME: Final = b"\0"
"""Of Confluent's serializers: this byte, then the id of the schema in four bytes."""
_MORE_INFO: Final = "https://cloud.ibm.com/docs/EventStreams?topic=EventStreams-rest_producer_using"
_CODES: Final = {
    400: "invalid_value",
    401: "unauthorized",
    403: "forbidden",
    404: "topic_not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "payload_too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    429: "too_many_requests",
    500: "internal_error",
    503: "service_unavailable",
}
_TARGETS: Final = {
    401: {"type": "header", "name": "Authorization"},
    404: {"type": "parameter", "name": "topic_name"},
    415: {"type": "header", "name": "Content-Type"},
}


class _Encoded:
    """A payload as it is stored, and as the answer shows it."""

    def __init__(self, payload: Payload, data: bytes, schema: AvroSchema | None, subject: str) -> None:
        self.data = data
        self.schema = schema
        self.subject = subject
        self.schema_id = payload.schema_id
        self._type = payload.type

    def framed(self) -> bytes:
        return self.data if self.schema_id is None else _FRAME + self.schema_id.to_bytes(4, "big") + self.data

    def shown(self) -> dict[str, Any]:
        if self.schema_id is None:
            return {"type": self._type}
        return {"type": self._type, "schema_id": self.schema_id, "schema_artifact_id": self.subject}


class EventStreamsV2:
    """`POST /v2/topics/{topic_name}/records`."""

    def __init__(self, credentials: Credentials, producer: Producer, registry: SchemaRegistry) -> None:
        self._credentials = credentials
        self._producer = producer
        self._registry = registry
        self._schemas = ParsedSchemas()
        self._api = TopicApi(self._authenticate, error_answer, MAX_URL_BYTES)

    def rows(self) -> list[TopicRow]:
        """For the table."""
        return [TopicRow("POST", "/v2/topics/{topic}/records", self.produce, self._api, "records_v2")]

    async def produce(self, call: Call) -> Answer:
        """Check everything that the request says before rights, and those before anything is stored."""
        if media_type_of(call.head) != b"application/json":
            raise UnsupportedMediaType("content-type: must be application/json")
        body = await call.decoded_body(MAX_BODY_BYTES)
        topic = _read_topic(call.segments[0])
        is_confluent = _read_serializer(call.head)
        wanted = parse_record(body)
        key = None if wanted.key is None else await self._encode(wanted.key, topic, "key", is_confluent)
        value = await self._encode(wanted.value, topic, "value", is_confluent)
        if key is not None and len(key.data) + (0 if key.schema is None else 5) > MAX_KEY_BYTES:
            raise Refused("invalid_value", f"key.data is longer than {MAX_KEY_BYTES} bytes", "data")
        call.grant.check(Right.PRODUCE, topic)
        await self._producer.check_topic(topic)
        for part in (key, value):
            await self._register(part, call.grant)
        record = Record(value.framed(), None if key is None else key.framed(), wanted.headers)
        (produced,) = await self._producer.produce((ToProduce(topic, record),))
        fields: dict[str, Any] = {
            "topic_name": topic,
            "partition_id": produced.partition,
            "offset": produced.offset,
            "timestamp": shown_time(produced.timestamp_ms),
        }
        if key is not None:
            fields["key"] = key.shown()
        return json_answer({**fields, "value": value.shown()})

    def _authenticate(self, head: Head) -> Grant:
        header = head.first.get(b"authorization")
        if header is None:
            raise Unauthorized("unauthorized: send the token as `Authorization: Bearer <token>`")
        scheme, token = read_authorization(header)
        if scheme != "bearer":
            raise Unauthorized("unauthorized: this API takes `Authorization: Bearer <token>` only")
        return find_grant(self._credentials, token)

    async def _encode(self, payload: Payload, topic: str, part: Part, is_confluent: bool) -> _Encoded:
        if payload.type != "avro":
            return _Encoded(payload, payload.data, None, "")
        if not is_confluent:
            raise Refused(
                "missing_field",
                f"serializer: the query must have serializer=confluent, because {part}.type is avro",
                "serializer",
                "parameter",
            )
        schema = await self._schema_of(payload, part)
        try:
            subject = name_subject(payload.strategy, topic, schema.fullname, part)
        except InvalidRequest as error:
            raise Refused("invalid_value", f"{part}.schema_name_strategy: {error}", "schema_name_strategy") from None
        try:
            return _Encoded(payload, schema.encode_json(payload.data.decode()), schema, subject)
        except (Mismatch, TooMuchWork) as error:
            raise Refused("invalid_schema", f"{part}.data does not match the schema: {error}", "data") from None

    async def _schema_of(self, payload: Payload, part: Part) -> AvroSchema:
        name, text = "schema", payload.schema
        try:
            if text is None:
                name = "schema_id"
                text = await self._registry.get_text(payload.schema_id or 0)
            return self._schemas.parse(text)
        except (InvalidSchema, UnknownSchema) as error:
            raise Refused("invalid_schema", f"{part}.{name}: {error}", name) from None

    async def _register(self, part: _Encoded | None, grant: Grant) -> None:
        """Find the id of a schema that was sent, or give it one."""
        if part is None or part.schema is None or part.schema_id is not None:
            return
        may_register = grant.covers_subject(part.subject)
        try:
            version = await self._registry.register(part.subject, part.schema, may_register=may_register)
        except Incompatible as error:
            raise Refused("invalid_schema", str(error), "schema") from None
        if version is None:
            raise Forbidden(
                f"forbidden: subject {part.subject[:100]} of the schema registry does not have the schema, and the"
                " credential may not register it there"
            )
        part.schema_id = version.schema_id


def error_answer(error: BaseException, head: Head) -> Answer:
    """`{"trace", "error": {"code", "message", "more_info", "target"}}`."""
    shown = describe_error(error, head)
    trace = new_trace()
    code, target = _CODES.get(shown.status, "internal_error"), _TARGETS.get(shown.status)
    if isinstance(error, Refused):
        code, target = error.code, error.target
    fields: dict[str, Any] = {
        "code": code,
        "message": shown.text.encode("utf-8", "replace").decode(),
        "more_info": _MORE_INFO,
    }
    if target is not None:
        fields["target"] = target
    answer = json_answer({"trace": trace, "error": fields}, shown.status, shown.headers)
    return Answer(answer.status, answer.body, answer.headers, trace=trace)


def _read_topic(raw: str) -> str:
    topic = decode(raw, "topic_name")
    if len(topic) > _MAX_TOPIC_CHARACTERS or not is_topic_name(topic):
        raise Refused(
            "invalid_value",
            f"topic_name: {topic[:100]!r} is no name of a topic: use 1 to {_MAX_TOPIC_CHARACTERS} of A-Z a-z 0-9 . _ -",
            "topic_name",
            "parameter",
        )
    return topic


def _read_serializer(head: Head) -> bool:
    serializer = first_value(head.query, "serializer")
    if serializer not in (None, "confluent"):
        raise Refused("invalid_value", "serializer: only confluent is known", "serializer", "parameter")
    return serializer is not None

"""IBM's older producer API: the body is the record's value; see docs/protocol/kafka-event-streams.md."""

import re
from typing import Any, Final

import msgspec

from qstash_clone.api.errors import Header
from qstash_clone.api.requests import Head
from qstash_clone.api.topics.authorization import password_of, read_authorization
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
from qstash_clone.api.topics.queries import decode, first_value
from qstash_clone.api.topics.table import TopicApi, TopicRow
from qstash_clone.errors import (
    BodyTooLarge,
    Forbidden,
    InvalidRequest,
    LengthRequired,
    NotFound,
    QstashCloneError,
    StorageTimeout,
    Unauthorized,
    UnsupportedMediaType,
)
from qstash_clone.topics.avro_binary import check_binary
from qstash_clone.topics.avro_data import Mismatch, read_json
from qstash_clone.topics.avro_types import TooMuchWork
from qstash_clone.topics.producing import Producer, ToProduce
from qstash_clone.topics.records import NAME_RULE, Record, is_topic_name
from qstash_clone.topics.schemas import NamedVersion, ParsedSchemas, SchemaRegistry, UnknownSubject, UnknownVersion

MAX_URL_BYTES: Final = 10 * 1024
_JSON, _BINARY, _TEXT, _XML = "json", "binary", "text", "xml"
_KINDS: Final = {
    b"application/json": _JSON,
    b"application/octet-stream": _BINARY,
    b"text/plain": _TEXT,
    b"application/xml": _XML,
    b"text/xml": _XML,
    **{
        b"%svnd.ibm-event-streams.%s.v1" % (prefix, kind.encode()): kind
        for prefix in (b"", b"application/")
        for kind in (_JSON, _BINARY, _TEXT)
    },
}
_NEEDS_LENGTH: Final = (_TEXT, _BINARY)
_SCHEMA_HEADER: Final = "com.ibm.eventstreams.schemaregistry."
_ENCODINGS: Final = {_JSON: b"JSON", _BINARY: b"BINARY"}
_HEX: Final = re.compile(r"([0-9A-Fa-f]{2})*")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,9}")
_CHALLENGES: Final[tuple[Header, ...]] = (
    (b"www-authenticate", b"Bearer"),
    (b"www-authenticate", b'Basic realm="kafka", charset="UTF-8"'),
)
_CODES_OF_KAFKA: Final[tuple[tuple[type[QstashCloneError], int], ...]] = (
    (NotFound, 3),
    (StorageTimeout, 7),
    (BodyTooLarge, 10),
    (Forbidden, 29),
)

_raw_decoder = msgspec.json.Decoder(msgspec.Raw)


class KeyTooLarge(BodyTooLarge):
    """The key is over its limit."""


class SchemaNotFound(NotFound):
    """The registry does not have the schema that the record refers to."""


class SchemaMismatch(InvalidRequest):
    """The body is not what its schema says."""


class EventStreamsV1:
    """`POST /topics/{topic_name}/records`."""

    def __init__(self, credentials: Credentials, producer: Producer, registry: SchemaRegistry) -> None:
        self._credentials = credentials
        self._producer = producer
        self._registry = registry
        self._schemas = ParsedSchemas()
        self._api = TopicApi(self._authenticate, error_answer, MAX_URL_BYTES)

    def rows(self) -> list[TopicRow]:
        """For the table."""
        return [TopicRow("POST", "/topics/{topic}/records", self.produce, self._api, "records_v1")]

    async def produce(self, call: Call) -> Answer:
        """The body becomes the value as it is."""
        head = call.head
        kind = _KINDS.get(media_type_of(head))
        if kind is None:
            raise UnsupportedMediaType(
                "content-type: must be text/plain, application/octet-stream, application/json, application/xml,"
                " text/xml or vnd.ibm-event-streams.{json,binary,text}.v1"
            )
        body = await self._read_body(call, kind)
        topic = decode(call.segments[0], "topic_name")
        if not is_topic_name(topic):
            raise InvalidRequest(f"topic_name: {topic[:100]!r} is no name of a topic: {NAME_RULE}")
        key = _read_key(head)
        headers = parse_headers(first_value(head.query, "headers"))
        if kind == _JSON:
            _check_json(body)
        reference = _read_schema_reference(head)
        call.grant.check(Right.PRODUCE, topic)
        if reference is not None:
            headers += await self._look_up_schema(reference, head, kind, body)
        (produced,) = await self._producer.produce((ToProduce(topic, Record(body, key, headers)),))
        return json_answer(
            {
                "metadata": {
                    "topic": topic,
                    "timestamp": shown_time(produced.timestamp_ms),
                    "partition": produced.partition,
                    "offset": produced.offset,
                }
            }
        )

    def _authenticate(self, head: Head) -> Grant:
        header = head.first.get(b"authorization")
        if header is not None:
            scheme, rest = read_authorization(header)
            return find_grant(self._credentials, password_of(rest) if scheme == "basic" else rest)
        token = head.first.get(b"x-auth-token")
        if token is None:
            raise Unauthorized(
                "unauthorized: send the token as `Authorization: Bearer <token>`, as the password of"
                " `Authorization: Basic`, or as `X-Auth-Token`"
            )
        return find_grant(self._credentials, token.strip())

    async def _read_body(self, call: Call, kind: str) -> bytes:
        if kind in _NEEDS_LENGTH and b"content-length" not in call.head.first:
            raise LengthRequired("content-length: the header is required for this content type")
        body = await call.body(MAX_BODY_BYTES)
        if not body:
            raise LengthRequired("the body is empty")
        return body

    async def _look_up_schema(
        self, reference: tuple[str, str], head: Head, kind: str, body: bytes
    ) -> tuple[tuple[str, bytes], ...]:
        """The headers that name the schema of a record. Raises `SchemaNotFound`, `SchemaMismatch`."""
        name, version = reference
        try:
            if version != "latest" and _VERSION.fullmatch(version) is None:
                raise UnknownVersion(f"Version {version[:100]} not found.")
            found = await self._registry.get_version(name, None if version == "latest" else int(version))
        except (UnknownSubject, UnknownVersion) as error:
            raise SchemaNotFound(f"schema {name[:100]}: {error}") from None
        if _read_flag(head, "schemavalidation"):
            self._check_body(found, kind, body)
        headers = (
            (f"{_SCHEMA_HEADER}schema.id", name.encode()),
            (f"{_SCHEMA_HEADER}schema.version", str(found.version).encode()),
        )
        encoding = _ENCODINGS.get(kind)
        return headers if encoding is None else (*headers, (f"{_SCHEMA_HEADER}encoding", encoding))

    def _check_body(self, schema: NamedVersion, kind: str, body: bytes) -> None:
        parsed = self._schemas.parse(schema.text).type
        try:
            match kind:
                case "json":
                    read_json(parsed, body.decode("utf-8-sig"))
                case "binary":
                    check_binary(parsed, body)
                case _:
                    raise Mismatch("only JSON and octet-stream can be checked")
        except (Mismatch, TooMuchWork) as error:
            raise SchemaMismatch(f"the body does not match schema {schema.subject[:100]}: {error}") from None


def error_answer(error: BaseException, head: Head) -> Answer:
    """The fields of version 1.0.0 of this API under `error`, and those that 1.1.0 has at the top as well."""
    shown = describe_error(error, head)
    # This API counts what is too long among what is wrong.
    status = 400 if isinstance(error, BodyTooLarge) else shown.status
    trace = new_trace()
    text = shown.text.encode("utf-8", "replace").decode()
    fields: dict[str, Any] = {"error_code": status, "message": text, "incident": trace}
    is_about_a_schema = isinstance(error, SchemaNotFound | SchemaMismatch)
    if not is_about_a_schema:
        code = next((code for kind, code in _CODES_OF_KAFKA if isinstance(error, kind)), None)
        if code is not None and status != 401:
            fields["kafka_error_code"] = code
    topic = _topic_of(head)
    if topic is not None:
        fields["topic"] = topic
    if is_about_a_schema:
        fields["schema"] = (first_value(head.query, "schemaname") or "")[:100]
    headers = _CHALLENGES if isinstance(error, Unauthorized) else shown.headers
    answer = json_answer({"error_code": status, "message": text, "error": fields}, status, headers)
    return Answer(answer.status, answer.body, answer.headers, trace=trace)


def parse_headers(text: str | None) -> tuple[tuple[str, bytes], ...]:
    """`name:value` pairs separated by commas, values in base 16. Raises `InvalidRequest`."""
    if not text:
        return ()
    headers: list[tuple[str, bytes]] = []
    for pair in text.split(","):
        name, colon, encoded = pair.partition(":")
        if not name or not colon:
            raise InvalidRequest(f"headers: {pair[:100]!r} is no name:value")
        headers.append((name, decode_hex(encoded, f"headers: the value of {name[:100]!r}")))
    return tuple(headers)


def decode_hex(text: str, where: str) -> bytes:
    """Base 16 in any case, nothing else. Raises `InvalidRequest`, naming the place."""
    if _HEX.fullmatch(text) is None:
        raise InvalidRequest(f"{where} is not in base 16: use an even number of hexadecimal digits")
    return bytes.fromhex(text)


def _read_key(head: Head) -> bytes | None:
    key_type = (first_value(head.query, "keyType") or "text").lower()
    if key_type not in ("text", "binary"):
        raise InvalidRequest(f"keyType: {key_type[:100]!r} is neither text nor binary")
    text = first_value(head.query, "key")
    if text is None:
        return None
    key = text.encode() if key_type == "text" else decode_hex(text, "key")
    if len(key) > MAX_KEY_BYTES:
        raise KeyTooLarge(f"key: {len(key)} bytes are more than the limit of {MAX_KEY_BYTES}")
    return key


def _read_schema_reference(head: Head) -> tuple[str, str] | None:
    name, version = first_value(head.query, "schemaname"), first_value(head.query, "schemaversion")
    wants_validation = _read_flag(head, "schemavalidation")
    if name is None and version is None and not wants_validation:
        return None
    if not name or not version:
        raise InvalidRequest("schemaname and schemaversion: a schema is referred to by both")
    return name, version


def _read_flag(head: Head, name: str) -> bool:
    match (first_value(head.query, name) or "false").lower():
        case "true":
            return True
        case "false":
            return False
        case other:
            raise InvalidRequest(f"{name}: {other[:100]!r} is neither true nor false")


def _check_json(body: bytes) -> None:
    try:
        body.decode()
        _raw_decoder.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {str(error)[:100]}") from None


def _topic_of(head: Head) -> str | None:
    """The topic in the path of a request, if it can be the name of one."""
    segments = head.raw_path.decode("latin-1").strip("/").split("/")
    try:
        topic = decode(segments[1], "topic_name") if len(segments) > 1 else ""
    except InvalidRequest:
        return None
    return topic if is_topic_name(topic) else None

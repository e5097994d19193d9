"""The schema registry over HTTP, as clients of Confluent's use it; see docs/protocol/schema-registry.md."""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from qstash_clone.api.errors import Header, answer_of, stopping_answer
from qstash_clone.api.requests import Head
from qstash_clone.api.topics.authorization import password_of, read_authorization
from qstash_clone.api.topics.calls import Answer, Call, Handler
from qstash_clone.api.topics.credentials import ALL_TOPICS, Credentials, Grant, Right
from qstash_clone.api.topics.queries import decode, first_value
from qstash_clone.api.topics.table import TopicApi, TopicRow
from qstash_clone.errors import (
    Forbidden,
    InvalidRequest,
    QuotaExceeded,
    StorageError,
    StorageTimeout,
    Unauthorized,
)
from qstash_clone.topics.avro_schema import AvroSchema, InvalidSchema, parse_schema
from qstash_clone.topics.avro_types import TooMuchWork
from qstash_clone.topics.schemas import (
    LEVELS,
    AlreadyDeleted,
    Incompatible,
    Level,
    NamedVersion,
    NotDeletedFirst,
    SchemaRegistry,
    UnknownLevel,
    UnknownSchema,
    UnknownSubject,
    UnknownVersion,
    check_subject,
)

PREFIXES: Final = ("/schema-registry", "/confluent")
CONTENT_TYPE: Final = b"application/vnd.schemaregistry.v1+json"
MAX_URL_BYTES: Final = 16 * 1024
_MAX_BODY_BYTES: Final = 1024 * 1024
_MAX_NUMBER: Final = 2**31 - 1
_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_TYPE: Final = "AVRO"
_MODE: Final = "READWRITE"
_CHALLENGES: Final[tuple[Header, ...]] = (
    (b"www-authenticate", b'Basic realm="schema registry", charset="UTF-8"'),
    (b"www-authenticate", b"Bearer"),
)


class Unprocessable(InvalidRequest):
    """What is asked for cannot be done; the registry has a number for each such case, and answers 422."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(text)


class _SchemaRequest(msgspec.Struct):
    schema: str | None = None
    schemaType: str | None = None  # noqa: N815 (the name in the protocol)
    references: list[msgspec.Raw] | None = None
    id: int | None = None
    version: int | None = None


class _LevelRequest(msgspec.Struct):
    compatibility: str | None = None


_schema_decoder = msgspec.json.Decoder(_SchemaRequest)
_level_decoder = msgspec.json.Decoder(_LevelRequest)


class SchemaRegistryApi:
    """All routes of the registry, under each of its prefixes."""

    def __init__(self, credentials: Credentials, registry: SchemaRegistry) -> None:
        self._credentials = credentials
        self._registry = registry
        self._api = TopicApi(self._authenticate, error_answer, MAX_URL_BYTES)

    def rows(self) -> list[TopicRow]:
        """For the table."""
        handlers: tuple[tuple[str, str, Handler], ...] = (
            ("GET", "", self.root),
            ("GET", "/subjects", self.list_subjects),
            ("POST", "/subjects/{subject}", self.find_version),
            ("DELETE", "/subjects/{subject}", self.delete_subject),
            ("GET", "/subjects/{subject}/versions", self.list_versions),
            ("POST", "/subjects/{subject}/versions", self.register),
            ("GET", "/subjects/{subject}/versions/{version}", self.get_version),
            ("GET", "/subjects/{subject}/versions/{version}/schema", self.get_version_schema),
            ("DELETE", "/subjects/{subject}/versions/{version}", self.delete_version),
            ("GET", "/schemas/types", self.list_types),
            ("GET", "/schemas/ids/{id}", self.get_schema),
            ("GET", "/schemas/ids/{id}/schema", self.get_schema_text),
            ("GET", "/schemas/ids/{id}/subjects", self.list_subjects_of),
            ("GET", "/schemas/ids/{id}/versions", self.list_versions_of),
            ("GET", "/config", self.get_level),
            ("PUT", "/config", self.set_level),
            ("DELETE", "/config", self.clear_level),
            ("GET", "/config/{subject}", self.get_level),
            ("PUT", "/config/{subject}", self.set_level),
            ("DELETE", "/config/{subject}", self.clear_level),
            ("POST", "/compatibility/subjects/{subject}/versions", self.check_compatibility),
            ("POST", "/compatibility/subjects/{subject}/versions/{version}", self.check_compatibility),
            ("GET", "/mode", self.get_mode),
        )
        return [
            TopicRow(method, prefix + path, handler, self._api, "schema_registry")
            for prefix in PREFIXES
            for method, path, handler in handlers
        ]

    async def root(self, call: Call) -> Answer:
        """Clients ask for it to see whether the registry is there."""
        return _answer({})

    async def list_subjects(self, call: Call) -> Answer:
        """Those that the credential is for."""
        _check_reading(call.grant)
        prefix = first_value(call.head.query, "subjectPrefix") or ""
        subjects = await self._registry.list_subjects(deleted=_flag(call, "deleted"))
        return _answer([one for one in subjects if one.startswith(prefix) and _is_for(call.grant, one)])

    async def list_versions(self, call: Call) -> Answer:
        subject = _read_subject(call)
        return _answer(await self._registry.list_versions(subject, deleted=_flag(call, "deleted")))

    async def register(self, call: Call) -> Answer:
        """Answers the id that an equal schema has, and gives another one its own."""
        subject = _checked_subject(call, Right.PRODUCE)
        request = await _read_schema_request(call)
        if request.id is not None or request.version is not None:
            raise Unprocessable(42205, f"Subject {subject[:100]} is not in import mode")
        check_subject(subject)
        version = await self._registry.register(subject, _parse(request))
        return _answer({"id": None if version is None else version.schema_id})

    async def find_version(self, call: Call) -> Answer:
        subject = _read_subject(call)
        schema = _parse(await _read_schema_request(call))
        return _version_answer(await self._registry.find_version(subject, schema, deleted=_flag(call, "deleted")))

    async def get_version(self, call: Call) -> Answer:
        return _version_answer(await self._get_version(call))

    async def get_version_schema(self, call: Call) -> Answer:
        return Answer(200, (await self._get_version(call)).text.encode(), (), CONTENT_TYPE)

    async def delete_subject(self, call: Call) -> Answer:
        """Hides all versions; with `permanent=true` takes away what is hidden."""
        subject = _checked_subject(call, Right.ADMINISTER)
        return _answer(await self._registry.delete_subject(subject, permanent=_flag(call, "permanent")))

    async def delete_version(self, call: Call) -> Answer:
        subject = _checked_subject(call, Right.ADMINISTER)
        version = _read_version(call.segments[1])
        return _answer(await self._registry.delete_version(subject, version, permanent=_flag(call, "permanent")))

    async def list_types(self, call: Call) -> Answer:
        _check_reading(call.grant)
        return _answer([_TYPE])

    async def get_schema(self, call: Call) -> Answer:
        return _answer({"schema": await self._text_of(call)})

    async def get_schema_text(self, call: Call) -> Answer:
        return Answer(200, (await self._text_of(call)).encode(), (), CONTENT_TYPE)

    async def list_subjects_of(self, call: Call) -> Answer:
        return _answer(list(dict.fromkeys(subject for subject, _ in await self._uses(call))))

    async def list_versions_of(self, call: Call) -> Answer:
        return _answer([{"subject": subject, "version": version} for subject, version in await self._uses(call)])

    async def get_level(self, call: Call) -> Answer:
        subject = _read_subject(call) if call.segments else None
        _check_reading(call.grant)
        level = await self._registry.get_level(subject, default_to_global=_flag(call, "defaultToGlobal"))
        return _answer({"compatibilityLevel": level})

    async def set_level(self, call: Call) -> Answer:
        subject = _config_subject(call)
        level = _read_level(_decode_body(_level_decoder, await call.decoded_body(_MAX_BODY_BYTES)).compatibility)
        await self._registry.set_level(subject, level)
        return _answer({"compatibility": level})

    async def clear_level(self, call: Call) -> Answer:
        return _answer({"compatibilityLevel": await self._registry.clear_level(_config_subject(call))})

    async def check_compatibility(self, call: Call) -> Answer:
        """Whether a schema could be registered: after one version, or at the level of the subject."""
        subject = _read_subject(call)
        is_of_all = len(call.segments) == 1
        version = None if is_of_all else _read_version(call.segments[1])
        schema = _parse(await _read_schema_request(call))
        reasons = await self._registry.why_incompatible(subject, schema, version, all_versions=is_of_all)
        fields: dict[str, Any] = {"is_compatible": not reasons}
        if _flag(call, "verbose"):
            fields["messages"] = reasons
        return _answer(fields)

    async def get_mode(self, call: Call) -> Answer:
        """It cannot be changed."""
        _check_reading(call.grant)
        return _answer({"mode": _MODE})

    def _authenticate(self, head: Head) -> Grant:
        header = head.first.get(b"authorization")
        if header is None:
            raise Unauthorized("unauthorized: send the token as the password of Basic, or as Bearer <token>")
        scheme, rest = read_authorization(header)
        grant = self._credentials.find(password_of(rest) if scheme == "basic" else rest)
        if grant is None:
            raise Unauthorized("unauthorized: the token is not valid")
        return grant

    async def _get_version(self, call: Call) -> NamedVersion:
        subject = _read_subject(call)
        version = _read_version(call.segments[1])
        return await self._registry.get_version(subject, version, deleted=_flag(call, "deleted"))

    async def _text_of(self, call: Call) -> str:
        _check_reading(call.grant)
        return await self._registry.get_text(_read_id(call))

    async def _uses(self, call: Call) -> list[tuple[str, int]]:
        _check_reading(call.grant)
        uses = await self._registry.list_uses(_read_id(call), deleted=_flag(call, "deleted"))
        return [(subject, version) for subject, version in uses if _is_for(call.grant, subject)]


_STATUSES: Final[tuple[tuple[type[Exception], int, Callable[[Any], int]], ...]] = (
    (UnknownSubject, 404, lambda error: 40401),
    (UnknownVersion, 404, lambda error: 40402),
    (UnknownSchema, 404, lambda error: 40403),
    (AlreadyDeleted, 404, lambda error: 40406 if error.is_version else 40404),
    (NotDeletedFirst, 404, lambda error: 40407 if error.is_version else 40405),
    (UnknownLevel, 404, lambda error: 40408),
    (Incompatible, 409, lambda error: 409),
    (InvalidSchema, 422, lambda error: 42201),
    (TooMuchWork, 422, lambda error: 42201),
    (Unprocessable, 422, lambda error: error.code),
    (QuotaExceeded, 422, lambda error: 42206),
    (StorageTimeout, 503, lambda error: 50002),
    (StorageError, 503, lambda error: 50001),
)
"""Status and number of errors; another one has its status for a number."""


def error_answer(error: BaseException, head: Head) -> Answer:
    """`{"error_code": <number>, "message": <text>}`."""
    shown = answer_of(error, head.request_id.decode()) if isinstance(error, Exception) else stopping_answer()
    status, code = next(
        ((status, number(error)) for kind, status, number in _STATUSES if isinstance(error, kind)),
        (shown.status, shown.status),
    )
    text = str(error) if isinstance(error, Incompatible) else shown.text
    headers = _CHALLENGES if isinstance(error, Unauthorized) else shown.headers
    return _answer({"error_code": code, "message": text.encode("utf-8", "replace").decode()}, status, headers)


def _answer(content: object, status: int = 200, headers: tuple[Header, ...] = ()) -> Answer:
    return Answer(status, msgspec.json.encode(content), headers, CONTENT_TYPE)


def _version_answer(found: NamedVersion) -> Answer:
    return _answer({"subject": found.subject, "version": found.version, "id": found.schema_id, "schema": found.text})


def _check_reading(grant: Grant) -> None:
    """Who writes with schemas may look at them too."""
    if not grant.rights & (Right.READ | Right.PRODUCE):
        grant.check(Right.READ)


def _is_for(grant: Grant, subject: str) -> bool:
    return grant.scope == ALL_TOPICS or grant.covers_subject(subject)


def _decoded_subject(call: Call) -> str:
    return decode(call.segments[0], "subject")


def _read_subject(call: Call) -> str:
    """The subject of a request that only reads. Raises `Forbidden`."""
    subject = _decoded_subject(call)
    _check_reading(call.grant)
    _check_scope(call.grant, subject)
    return subject


def _checked_subject(call: Call, right: Right) -> str:
    """The subject of a request that changes something. Raises `Forbidden`."""
    subject = _decoded_subject(call)
    call.grant.check(right)
    _check_scope(call.grant, subject)
    return subject


def _config_subject(call: Call) -> str | None:
    if call.segments:
        return _checked_subject(call, Right.ADMINISTER)
    call.grant.check(Right.ADMINISTER)
    return None


def _check_scope(grant: Grant, subject: str) -> None:
    if not _is_for(grant, subject):
        raise Forbidden(f"forbidden: the credential is not for subject {subject[:100]}")


def _read_version(raw: str) -> int | None:
    """None for the latest. Raises `Unprocessable`."""
    text = decode(raw, "version")
    if text in ("latest", "-1"):
        return None
    if _NUMBER.fullmatch(text) is None or not 0 < int(text) <= _MAX_NUMBER:
        raise Unprocessable(
            42202,
            f"The specified version '{text[:100]}' is not a valid version id. Allowed values are between [1, 2^31-1]"
            ' and the string "latest"',
        )
    return int(text)


def _read_id(call: Call) -> int:
    text = decode(call.segments[0], "id")
    if _NUMBER.fullmatch(text) is None:
        raise UnknownSchema(f"Schema {text[:100]} not found")
    return int(text)


def _read_level(text: str | None) -> Level:
    level = None if text is None else LEVELS.get(text.upper())
    if level is None:
        raise Unprocessable(42203, f"Invalid compatibility level. Valid values are {', '.join(LEVELS)}")
    return level


async def _read_schema_request(call: Call) -> _SchemaRequest:
    return _decode_body(_schema_decoder, await call.decoded_body(_MAX_BODY_BYTES))


def _decode_body(decoder: Any, body: bytes) -> Any:
    if not body or body.isspace():
        raise Unprocessable(422, "the body is empty")
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unprocessable(422, f"the body is not what it should be: {str(error)[:100]}") from None


def _parse(request: _SchemaRequest) -> AvroSchema:
    if request.schemaType not in (None, _TYPE):
        raise Unprocessable(42201, f"schemaType: {request.schemaType[:100]!r} is not known, only {_TYPE}")
    if request.references:
        raise Unprocessable(42201, "references: a schema must be complete, it cannot refer to others")
    if request.schema is None:
        raise Unprocessable(42201, "schema: it is required")
    return parse_schema(request.schema)


def _flag(call: Call, name: str) -> bool:
    return (first_value(call.head.query, name) or "").lower() == "true"

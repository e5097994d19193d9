"""Joins the descriptions of all routes to one document of OpenAPI 3.1."""

import re
from collections.abc import Collection, Sequence
from typing import Any, Final, cast

import msgspec
from msgspec import structs

from qstash_clone import __version__
from qstash_clone.api.openapi import (
    dead_letters,
    event_streams,
    flow_control,
    kafka_consume,
    kafka_produce,
    logs,
    messages,
    publishing,
    queues,
    schedules,
    schema_registry,
    small_resources,
    topics,
    url_groups,
)
from qstash_clone.api.openapi.description import (
    Access,
    Answer,
    AnyOf,
    Family,
    Operation,
    Operations,
    Parameter,
    Schema,
    path_parameter,
)
from qstash_clone.api.openapi.shapes import Error
from qstash_clone.api.routing import Endpoint, Row

OPERATIONS: Final[Operations] = {
    **publishing.OPERATIONS,
    **messages.OPERATIONS,
    **dead_letters.OPERATIONS,
    **logs.OPERATIONS,
    **schedules.OPERATIONS,
    **url_groups.OPERATIONS,
    **queues.OPERATIONS,
    **flow_control.OPERATIONS,
    **small_resources.DEDUPLICATION,
    **small_resources.PREVIEWS,
    **small_resources.KEYS,
    **small_resources.PROBES,
    **small_resources.DEV,
    **kafka_produce.OPERATIONS,
    **event_streams.OPERATIONS,
    **schema_registry.OPERATIONS,
    **kafka_consume.OPERATIONS,
    **topics.OPERATIONS,
}
"""Everything that is described, whether this process serves it or not."""

_BESIDES_THE_TABLE: Final = (
    *publishing.OPERATIONS,
    *kafka_produce.OPERATIONS,
    *event_streams.OPERATIONS,
    *schema_registry.OPERATIONS,
    *kafka_consume.OPERATIONS,
    *topics.OPERATIONS,
)
_SEVERAL_IN_ONE: Final = {
    # One row, because a destination may look like a change of a schedule.
    "POST /v2/schedules/{rest}": (
        "POST /v2/schedules/{scheduleIdOrDestination}",
        "POST /v2/schedules/{scheduleId}/pause",
        "POST /v2/schedules/{scheduleId}/resume",
    ),
    # OpenAPI takes two paths that differ in the name of a parameter for one.
    "GET /v2/schedules/{scheduleId}": ("GET /v2/schedules/{scheduleIdOrDestination}",),
    "DELETE /v2/schedules/{scheduleId}": ("DELETE /v2/schedules/{scheduleIdOrDestination}",),
}

_ERRORS: Final = {
    400: ("BadRequest", "A destination, header, parameter or body is malformed."),
    401: ("Unauthorized", "No token, or a wrong one."),
    403: ("Forbidden", "The token may not do this."),
    404: ("NotFound", "What the request names does not exist."),
    408: ("RequestTimeout", "The request did not arrive in time."),
    409: ("Conflict", "It does not get along with what is there."),
    411: ("LengthRequired", "There is no body, or its length is not announced."),
    412: ("PreconditionFailed", "A configured maximum would be passed."),
    413: ("ContentTooLarge", "The body is larger than allowed."),
    414: ("UriTooLong", "The path and query are longer than allowed."),
    415: ("UnsupportedMediaType", "The content type is none that is understood here."),
    422: ("UnprocessableContent", "A schema, a version or a level that is none."),
    429: ("TooManyRequests", "More requests in this second than there may be."),
    431: ("HeadersTooLarge", "More headers, or more bytes of them, than allowed."),
    500: ("InternalError", "A defect of the service; the text names the request id."),
    503: ("Unavailable", "The store does not answer or is full, or the service is stopping; it may have been done."),
}
_ALWAYS: Final = {
    Access.NOBODY_ASKS: (408, 431, 500, 503),
    Access.PUBLISHING: (401, 403, 408, 431, 500, 503),
    Access.DEV: (401, 403, 408, 431, 500, 503),
    Access.MANAGEMENT: (401, 403, 408, 429, 431, 500, 503),
    Access.TOPICS: (401, 403, 408, 414, 429, 431, 500, 503),
}
_BEFORE_ANY_ROUTE: Final = (408, 431)
"""Answered before it is known which API a request is for."""
_QSTASH: Final = Family(
    name="", error=Error, media_type="application/json", security=("bearer", "query"), has_head=True
)
_ANSWER_HEADERS: Final = {
    "X-Request-Id": "The id of the request: its own, or one that was made up.",
    "Burst-RateLimit-Limit": "Requests in a second.",
    "Burst-RateLimit-Remaining": "How many are left in this one.",
    "Burst-RateLimit-Reset": "When the next one begins, in seconds of Unix time.",
    "Retry-After": "Seconds after which to try again.",
    "X-Trace-Id": "The `trace` or `incident` in the body.",
    "WWW-Authenticate": "The scheme of the credential.",
}
_HEADERS_OF: Final = {
    401: ("WWW-Authenticate",),
    429: ("Burst-RateLimit-Limit", "Burst-RateLimit-Remaining", "Burst-RateLimit-Reset", "Retry-After"),
    503: ("Retry-After",),
}
_HEADERS_OF_TOPICS: Final = {**_HEADERS_OF, 429: ("Retry-After",)}
_REQUEST_ID: Final = Parameter(
    name="X-Request-Id",
    place="header",
    text="Up to 128 visible ASCII characters, for the answer and the log.",
    shared_as="X-Request-Id",
)

_TEXT: Final = (
    "A message queue over HTTP that speaks the QStash v2 API. Paths are matched in any case, ids are not. Bodies that "
    "are JSON are read as such whatever their content type says. GET includes HEAD, except for operations marked "
    "`x-no-head`, where HEAD is answered 405. A path or method that is not here "
    "is answered 404 or 405, and what is no HTTP 400, all with an error in JSON. Operations marked `x-extension` are "
    "not part of QStash."
)


class UndescribedRoute(LookupError):
    """A row of the route table that no module of this package describes."""


def operations_of(rows: Sequence[Row], refusals: Collection[Endpoint]) -> dict[str, Operation]:
    """The operations of all rows, and those of publishing and of the Kafka REST APIs, which are not in this table.

    Raises `UndescribedRoute`. `refusals` are the endpoints that answer every request with 400.
    """
    found = {key: OPERATIONS[key] for key in _BESIDES_THE_TABLE}
    found["POST /v2/batch/"] = _with_slash(OPERATIONS["POST /v2/batch"])
    for row in rows:
        for method in row.methods.split():
            key = f"{method} {_wire_path(row.path)}"
            if row.endpoint in refusals or key == "POST /v2/schedules":
                found[key] = _refusal(method, _wire_path(row.path))
            elif key.endswith("/") and key[:-1] in OPERATIONS:
                found[key] = _with_slash(OPERATIONS[key[:-1]])
            else:
                for each in _SEVERAL_IN_ONE.get(key, (key,)):
                    if each not in OPERATIONS:
                        raise UndescribedRoute(f"{each} has no description in qstash_clone/api/openapi")
                    found[each] = OPERATIONS[each]
    return found


def build_document(rows: Sequence[Row], refusals: Collection[Endpoint]) -> dict[str, Any]:
    """The whole document. Raises as `operations_of`."""
    return _Builder().build(operations_of(rows, refusals))


def _wire_path(path: str) -> str:
    """`/v2/dlq/{dlq_id:path}` as the protocol writes it: `/v2/dlq/{dlqId}`."""

    def camel(match: re.Match[str]) -> str:
        first, *rest = match[1].split("_")
        return "{" + first + "".join(part.title() for part in rest) + "}"

    return re.sub(r"\{(\w+)(?::path)?\}", camel, path)


def _with_slash(operation: Operation) -> Operation:
    return structs.replace(operation, id=f"{operation.id}WithSlash")


def _refusal(method: str, path: str) -> Operation:
    words = re.findall(r"\w+", path)
    return Operation(
        id="refuse" + method.title() + "".join(word[0].upper() + word[1:] for word in words[1:]),
        tag="Refused",
        summary="A path without its last part, which must not mean everything",
        parameters=tuple(path_parameter(name, "Any.") for name in re.findall(r"\{(\w+)\}", path)),
        answers={},
        errors=(400,),
    )


class _Builder:
    """Collects what goes under `components` while the paths are written."""

    def __init__(self) -> None:
        self._schemas: dict[str, Schema] = {}
        self._parameters: dict[str, Schema] = {}
        self._responses: dict[str, Schema] = {}

    def build(self, operations: dict[str, Operation]) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = {}
        for key, operation in sorted(operations.items(), key=lambda item: item[0].partition(" ")[2]):
            method, _, path = key.partition(" ")
            paths.setdefault(path, {})[method.lower()] = self._operation(operation)
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "qstash-clone",
                "version": __version__,
                "description": _TEXT,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "security": [{"bearer": []}, {"query": []}],
            "tags": [{"name": name} for name in dict.fromkeys(one.tag for one in operations.values())],
            "paths": paths,
            "components": {
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "query": {"type": "apiKey", "in": "query", "name": "qstash_token"},
                    "basic": {"type": "http", "scheme": "basic"},
                    "authToken": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
                    "pass": {"type": "apiKey", "in": "query", "name": "pass"},
                },
                "headers": {
                    name: {"description": text, "schema": {"type": "string"}} for name, text in _ANSWER_HEADERS.items()
                },
                "parameters": self._parameters,
                "responses": dict(sorted(self._responses.items())),
                "schemas": dict(sorted(self._schemas.items())),
            },
        }

    def _operation(self, operation: Operation) -> Schema:
        statuses = {*operation.errors, *_ALWAYS[operation.access]}
        responses: dict[str, Any] = {str(status): self._answer(one) for status, one in operation.answers.items()}
        for status in sorted(statuses):
            family = _QSTASH if operation.family is None or status in _BEFORE_ANY_ROUTE else operation.family
            responses.setdefault(str(status), self._error(status, family))
        fields: Schema = {
            "operationId": operation.id,
            "tags": [operation.tag],
            "summary": operation.summary,
            "parameters": [self._parameter(one) for one in (*operation.parameters, _REQUEST_ID)],
            "responses": responses,
        }
        if operation.text:
            fields["description"] = operation.text
        if operation.body is not None:
            fields["requestBody"] = {
                "description": operation.body.text,
                "required": operation.body.is_required,
                "content": {operation.body.media_type: {"schema": self._schema(operation.body.shape)}},
            }
        if operation.access is Access.NOBODY_ASKS:
            fields["security"] = []
        if operation.family is not None:
            fields["x-api"] = operation.family.name
            fields["security"] = [{name: []} for name in operation.family.security]
            if not operation.family.has_head:
                fields["x-no-head"] = True
        if operation.is_extension:
            fields["x-extension"] = True
        return fields

    def _parameter(self, parameter: Parameter) -> Schema:
        fields: Schema = {
            "name": parameter.name,
            "in": parameter.place,
            "description": parameter.text,
            "schema": parameter.schema,
        }
        if parameter.place == "path":
            fields["required"] = True
        if parameter.spans_segments:
            fields["x-spans-segments"] = True
        if not parameter.shared_as:
            return fields
        self._parameters[parameter.shared_as] = fields
        return {"$ref": f"#/components/parameters/{parameter.shared_as}"}

    def _answer(self, answer: Answer) -> Schema:
        return {
            "description": answer.text,
            "headers": {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}},
            "content": {answer.media_type: {"schema": self._schema(answer.shape)}},
        }

    def _error(self, status: int, family: Family) -> Schema:
        short_name, text = _ERRORS[status]
        name = family.name + short_name
        headers = ("X-Request-Id", *(_HEADERS_OF if family is _QSTASH else _HEADERS_OF_TOPICS).get(status, ()))
        headers += family.error_headers
        self._responses[name] = {
            "description": text,
            "headers": {header: {"$ref": f"#/components/headers/{header}"} for header in headers},
            "content": {family.media_type: {"schema": self._schema(family.error)}},
        }
        return {"$ref": f"#/components/responses/{name}"}

    def _schema(self, shape: Any) -> Schema:
        if isinstance(shape, AnyOf):
            return {"anyOf": [self._schema(one) for one in shape.shapes]}
        if isinstance(shape, dict):
            given = cast("Schema", shape)
            return {name: self._schema(value) if isinstance(value, AnyOf) else value for name, value in given.items()}
        (schema,), components = msgspec.json.schema_components([shape], ref_template="#/components/schemas/{name}")
        self._schemas.update(components)
        return schema

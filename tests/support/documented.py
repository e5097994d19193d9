"""Holds answers of the api against its OpenAPI document: the status is described, and the body has that shape."""

import json
import re
from collections.abc import Iterator
from functools import cache, cached_property
from typing import Any, cast
from unittest.mock import Mock
from urllib.parse import unquote

from jsonschema import Draft202012Validator

from qstash_clone.api.app import REFUSALS, route_table
from qstash_clone.api.openapi.document import build_document
from qstash_clone.settings import Settings

Schema = dict[str, Any]

_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "minLength": 1}},
    "additionalProperties": False,
}
_KAFKA_ERROR: Schema = {
    **_ERROR,
    "required": ["error", "status"],
    "properties": {**_ERROR["properties"], "status": {"type": "integer"}},
}
_TEXT: Schema = {"type": "string", "minLength": 1}
_EVENT_STREAMS_ERROR: Schema = {
    "type": "object",
    "required": ["trace", "error"],
    "properties": {"trace": _TEXT, "error": {"type": "object", "required": ["code", "message", "more_info"]}},
    "additionalProperties": False,
}
_REGISTRY_ERROR: Schema = {
    "type": "object",
    "required": ["error_code", "message"],
    "properties": {"error_code": {"type": "integer"}, "message": _TEXT},
    "additionalProperties": False,
}
_LEGACY_ERROR: Schema = {
    **_REGISTRY_ERROR,
    "required": ["error_code", "message", "error"],
    "properties": {**_REGISTRY_ERROR["properties"], "error": {"type": "object", "required": ["incident"]}},
}
_REFUSALS = {
    "application/json": _ERROR,
    "application/json; charset=utf-8": {"anyOf": [_KAFKA_ERROR, _EVENT_STREAMS_ERROR, _LEGACY_ERROR]},
    "application/vnd.schemaregistry.v1+json": _REGISTRY_ERROR,
}
"""What an undescribed request may be answered: by QStash's API, and by the Kafka REST APIs."""

_KAFKA = re.compile(r"/*+(?!v2/)|/*v2/topics/[^/]*/records/?\Z", re.IGNORECASE)

_CONFLUENT = re.compile(r"\A/*+confluent(?=/|\Z)", re.IGNORECASE)
"""Where the schema registry is served again."""


class Document:
    """One document, asked for operations and answers."""

    def __init__(self, document: Schema) -> None:
        self.document = document

    def operations(self) -> Iterator[tuple[str, str, Schema]]:
        """Method, path and operation of all."""
        for path, methods in self.document["paths"].items():
            for method, operation in methods.items():
                yield method.upper(), path, operation

    def find(self, method: str, raw_path: str) -> tuple[str, Schema] | None:
        """The path, as it is described, and the operation of a request; None if nothing describes it."""
        wanted = "GET" if method == "HEAD" else method
        raw_path = _CONFLUENT.sub("/schema-registry", raw_path)
        is_kafka = _KAFKA.match(raw_path) is not None
        if (wanted == "GET" or is_kafka) and not raw_path.endswith("//") and raw_path.lower() not in self._described:
            # As the routes do, see docs/protocol/transport.md.
            raw_path = raw_path.removesuffix("/")
        for one_method, path, pattern, operation in self._patterns:
            match = pattern.fullmatch(raw_path) if one_method == wanted else None
            if match is not None and self._fits(match.groupdict(), operation):
                return None if method == "HEAD" and operation.get("x-no-head") else (path, operation)
        return None

    def parameters(self, operation: Schema) -> list[Schema]:
        """Those of an operation, references followed."""
        return [self._follow(parameter) for parameter in operation.get("parameters", [])]

    def complaints(self, method: str, raw_path: str, status: int, content_type: str, body: bytes) -> list[str]:
        """What is wrong with an answer; an undescribed request may only be refused."""
        found = self.find(method, raw_path)
        if found is None:
            if status < 400:
                return [f"answers {status}, and nothing describes this request"]
            media_type = content_type if content_type in _REFUSALS else "application/json"
            return self._mismatches(_REFUSALS[media_type], media_type, content_type, body, method)
        responses = found[1]["responses"]
        if str(status) not in responses:
            return [f"answers {status}, described are {', '.join(responses)}"]
        ((media_type, content),) = self._follow(responses[str(status)])["content"].items()
        return self._mismatches(content["schema"], media_type, content_type, body, method)

    def _fits(self, values: dict[str, str], operation: Schema) -> bool:
        """Whether the parts of a path have the form that tells them from another operation's."""
        patterns = {one["name"]: one["schema"].get("pattern", "") for one in self.parameters(operation)}
        return all(re.search(patterns[name], unquote(value)) for name, value in values.items())

    def _mismatches(self, schema: Schema, media_type: str, content_type: str, body: bytes, method: str) -> list[str]:
        if content_type != media_type:
            return [f"has the content type {content_type}, described is {media_type}"]
        if not media_type.startswith(("application/json", "application/vnd.")) or (method == "HEAD" and not body):
            return []
        errors = self._validator(json.dumps(schema)).iter_errors(json.loads(body))  # pyright: ignore[reportUnknownMemberType]
        return [f"{error.json_path}: {error.message[:300]}" for error in errors]

    def _follow(self, given: Schema) -> Schema:
        if "$ref" not in given:
            return given
        _, _, kind, name = given["$ref"].split("/")
        return self.document["components"][kind][name]

    @cached_property
    def _described(self) -> frozenset[str]:
        """Paths that can be read, in lower case."""
        return frozenset(path.lower() for path, methods in self.document["paths"].items() if "get" in methods)

    @cached_property
    def _patterns(self) -> list[tuple[str, str, re.Pattern[str], Schema]]:
        """Those that span segments last, and those with the fewest parameters first: what fits narrowly counts."""
        found: list[tuple[str, str, re.Pattern[str], Schema]] = []
        for method, path, operation in self.operations():
            spanning = {one["name"] for one in self.parameters(operation) if one.get("x-spans-segments")}
            parts = re.split(r"\{(\w+)\}", path)
            pattern = "".join(
                re.escape(part) if not index % 2 else f"(?P<{part}>{'.*' if part in spanning else '[^/]*'})"
                for index, part in enumerate(parts)
            )
            found.append((method, path, re.compile(f"/?{pattern}", re.IGNORECASE | re.DOTALL), operation))
        return sorted(found, key=lambda one: (".*" in one[2].pattern, one[1].count("{")))

    @cache  # noqa: B019  (there is one document for all tests of a process)
    def _validator(self, schema: str) -> Draft202012Validator:
        return Draft202012Validator({**json.loads(schema), "components": {"schemas": self._closed}})

    @cached_property
    def _closed(self) -> Schema:
        """Generated clients shall bear fields that are new to them; tests shall find those that nobody described."""
        return _closed(self.document["components"]["schemas"])


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(one) for one in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    fields = {name: _closed(value) for name, value in cast("Schema", schema).items()}
    is_object = fields.get("type") == "object" and isinstance(fields.get("properties"), dict)
    return {"additionalProperties": False, **fields} if is_object else fields


def build(settings: Settings) -> Document:
    """The document of an api with these settings."""
    return Document(build_document(route_table(settings, Mock(), Mock(), Mock()), REFUSALS))

"""What a request says: its raw target, head, query and body, bounded and undecoded until somebody asks."""

import os
import re
from collections.abc import Iterator
from typing import cast
from urllib.parse import unquote_plus, unquote_to_bytes

import msgspec
from starlette.requests import Request
from starlette.types import Receive, Scope

from qstash_clone.errors import BodyTooLarge, ClientGone, InvalidRequest

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_PUBLISHING = re.compile(rb"/v2/(?:(publish|enqueue)(?:/|\Z)|(batch)/?\Z)", re.IGNORECASE)
_MAX_JSON_BYTES = 1024 * 1024
_MAX_PARAMETERS = 1000


class Head(msgspec.Struct):
    """One request before its body was read."""

    method: str
    raw_path: bytes
    """Starts with one slash."""
    query: bytes
    headers: list[tuple[bytes, bytes]]
    """Lower-case names, in the order they came."""
    first: dict[bytes, bytes]
    """The first line of each name."""
    client: str
    """Address of the other end of the connection."""
    request_id: bytes


class RequestIds:
    """Ids for requests that bring none: random per process, then counted."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex().encode() + b"-"
        self._count = 0

    def next_id(self) -> bytes:
        self._count += 1
        return self._prefix + b"%x" % self._count

    def sane(self, given: bytes | None) -> bytes:
        """The given id if it is at most 128 visible ASCII characters, else a fresh one."""
        if given is not None and _REQUEST_ID.fullmatch(given) is not None:
            return given
        return self.next_id()


def read_head(scope: Scope, request_ids: RequestIds) -> Head:
    """The head of an HTTP scope. A target that starts `//v2/` counts as `/v2/`."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    first = dict(reversed(headers))
    raw_path: bytes = scope["raw_path"]
    if raw_path[:2] == b"//" and raw_path[1:5].lower() == b"/v2/":
        raw_path = raw_path[1:]
    client: tuple[str, int] | None = scope["client"]
    return Head(
        scope["method"],
        raw_path,
        scope["query_string"],
        headers,
        first,
        "" if client is None else client[0],
        request_ids.sane(first.get(b"x-request-id")),
    )


def publishing_target(raw_path: bytes) -> tuple[str, bytes] | None:
    """`publish`, `enqueue` or `batch`, and what follows it in a raw path, undecoded; None for another path."""
    if raw_path.startswith(b"/v2/publish/"):
        return "publish", raw_path[12:]
    match = _PUBLISHING.match(raw_path)
    return None if match is None else ((match[1] or match[2]).lower().decode(), raw_path[match.end() :])


async def read_body(receive: Receive, head: Head, limit_bytes: int) -> bytes:
    """The whole body.

    Raises `BodyTooLarge` as soon as it is clear that it is longer than the limit (which, where the length was
    announced, is before anything was read), and `ClientGone` if the connection ends before the body does.
    """
    announced = head.first.get(b"content-length")
    if announced is not None and (not announced.isdigit() or len(announced) > 18 or int(announced) > limit_bytes):
        raise _too_large(limit_bytes)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        return body
    parts: list[bytes] = []
    size_bytes = 0
    while message["type"] == "http.request":
        part: bytes = message.get("body", b"")
        size_bytes += len(part)
        if size_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()
    raise ClientGone("The connection ended before the body was complete.")


async def read_json_object(request: Request) -> dict[str, object] | None:
    """The body of a request as a JSON object, whatever its content type says; None if there is no body.

    Raises `InvalidRequest` for anything else, `BodyTooLarge` above 1 MiB.
    """
    body = await read_body(request.receive, request.scope["head"], _MAX_JSON_BYTES)
    if not body.strip():
        return None
    try:
        parsed: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {str(error)[:100]}") from None
    if not isinstance(parsed, dict):
        raise InvalidRequest("the body is not a JSON object")
    return cast("dict[str, object]", parsed)


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than the limit of {limit_bytes} bytes")


def decode_segment(raw: str) -> str:
    """A path segment, percent-decoded once."""
    return unquote_to_bytes(raw).decode("utf-8", "replace") if "%" in raw else raw


def query_parameters(query: bytes) -> Iterator[tuple[str, str]]:
    """Names and values of a query string, decoded, without the credential and without configuration.

    Raises InvalidRequest if there are more than 1000.
    """
    if query.count(b"&") >= _MAX_PARAMETERS:
        raise InvalidRequest(f"the query has more than {_MAX_PARAMETERS} parameters")
    for parameter in query.split(b"&"):
        if parameter:
            raw_name, _, raw_value = parameter.decode("latin-1").partition("=")
            name = unquote_plus(raw_name)
            if name.lower() != "qstash_token" and not name.lower().startswith("upstash-"):
                yield name, unquote_plus(raw_value)


def parameters_of(request: Request) -> list[tuple[str, str]]:
    """`query_parameters` of a request that a route serves."""
    head: Head = request.scope["head"]
    return list(query_parameters(head.query))


def query_configuration(query: bytes) -> list[tuple[bytes, bytes]]:
    """The `upstash-*` parameters of a query string, decoded, with lower-case names."""
    lines: list[tuple[bytes, bytes]] = []
    for parameter in query.split(b"&"):
        raw_name, _, raw_value = parameter.partition(b"=")
        name = _unquote_form(raw_name).lower()
        if name.startswith(b"upstash-"):
            lines.append((name, _unquote_form(raw_value)))
    return lines


def _unquote_form(raw: bytes) -> bytes:
    return unquote_to_bytes(raw.replace(b"+", b" "))

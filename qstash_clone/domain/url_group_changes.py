"""Changes of URL groups as callers ask for them in JSON, into checked values."""

from collections.abc import Mapping
from typing import Final, cast

import msgspec

from qstash_clone.domain.callback_headers import CallbackKind, parse_callback
from qstash_clone.domain.egress import EgressPolicy
from qstash_clone.domain.header_names import canonical_name, check_value, is_header_name
from qstash_clone.domain.header_values import HeaderLines, text_of
from qstash_clone.domain.headers import PublishOptions, is_configuration, parse_options
from qstash_clone.domain.limits import Limits
from qstash_clone.domain.message import Headers
from qstash_clone.domain.names import check_name
from qstash_clone.domain.quoting import quoted
from qstash_clone.domain.url_groups import Endpoint, EndpointPattern
from qstash_clone.errors import InvalidRequest

MAX_ENDPOINT_NAME_CHARACTERS: Final = 256
MAX_ITEMS: Final = 1_000
"""Of one request: each is compared with every endpoint of the group."""

_ANY_URL: Final = "https://callback.invalid"
"""Stands for the one that a publisher will give."""


def parse_endpoints(body: Mapping[str, object], egress: EgressPolicy) -> list[Endpoint]:
    """The endpoints to be added to a group. Raises `InvalidRequest` if one of them is not acceptable."""
    endpoints: list[Endpoint] = []
    for field, pattern in _patterns(body):
        if pattern.url is None:
            raise InvalidRequest(f"{field}: the url is missing")
        egress.check_literal(pattern.url, f"url of {field}")
        endpoints.append(Endpoint(url=pattern.url, name=pattern.name))
    return endpoints


def parse_removals(body: Mapping[str, object]) -> list[EndpointPattern]:
    """Which endpoints are to be removed. Raises `InvalidRequest` for one that is described by nothing."""
    patterns: list[EndpointPattern] = []
    for field, pattern in _patterns(body):
        if pattern.url is None and pattern.name is None:
            raise InvalidRequest(f"{field}: give the url, the name or both")
        patterns.append(pattern)
    return patterns


def parse_default_headers(
    body: Mapping[str, object], limits: Limits, *, max_headers: int, max_bytes: int
) -> tuple[Headers, PublishOptions]:
    """The default headers of a group, and what a publish without headers of its own would do by them.

    No publish to the group can later fail because one of them is malformed. Raises `InvalidRequest` for such a one and
    for a header that is no configuration, `QuotaExceeded` for a value over its limit.
    """
    _check_fields(body, ("headers",), "the headers of a URL group")
    given = body.get("headers")
    if not isinstance(given, dict):
        raise InvalidRequest(f"headers: {_shown(given)} is not an object of names and values")
    lines: list[tuple[bytes, bytes]] = []
    for name, values in cast("dict[str, object]", given).items():
        lines += _lines(name, values)
    if len(lines) > max_headers:
        raise InvalidRequest(f"headers: {len(lines)} are more than the limit of {max_headers}")
    size_bytes = sum(len(name) + len(value) for name, value in lines)
    if size_bytes > max_bytes:
        raise InvalidRequest(f"headers: {size_bytes} bytes are more than the limit of {max_bytes}")
    options = parse_options((), (), limits, group_headers=lines)
    _check_what_depends(lines, limits)
    return tuple((canonical_name(name), value.decode("latin-1")) for name, value in lines), options


def _check_what_depends(lines: HeaderLines, limits: Limits) -> None:
    """Check what means nothing without another header, which a publisher may add."""
    given = dict(reversed(lines))
    for kind in CallbackKind:
        if kind.value.lower().encode() not in given:
            parse_callback(kind, _ANY_URL, lines).checked(limits)
    for header in ("Upstash-Schedule-Id", "Upstash-Queue-Name"):
        name = given.get(header.lower().encode())
        if name is not None:
            check_name(header, text_of(name))


def _lines(name: str, values: object) -> list[tuple[bytes, bytes]]:
    raw_name = name.lower().encode()
    if not is_header_name(raw_name):
        raise InvalidRequest(f"headers: {quoted(name)} is not a header name")
    if not is_configuration(raw_name):
        raise InvalidRequest(
            f"headers: {quoted(name)} is not possible here, use Content-Type and Upstash-* headers of a publish"
        )
    texts = cast("list[object]", values) if isinstance(values, list) else [values]
    lines: list[tuple[bytes, bytes]] = []
    for text in texts:
        if not isinstance(text, str):
            raise InvalidRequest(f"headers: the value of {quoted(name)} is neither a string nor an array of strings")
        lines.append((raw_name, check_value(f"headers: {name}", text.encode())))
    return lines


def _patterns(body: Mapping[str, object]) -> list[tuple[str, EndpointPattern]]:
    """What each item of `endpoints` says, and how to call that item in an error."""
    _check_fields(body, ("endpoints",), "the endpoints of a URL group")
    given = body.get("endpoints")
    items = cast("list[object] | None", given if isinstance(given, list) else None)
    if not items:
        raise InvalidRequest(
            f"endpoints: {_shown(body.get('endpoints'))} is not an array of endpoints, give at least one"
        )
    if len(items) > MAX_ITEMS:
        raise InvalidRequest(f"endpoints: {len(items)} are more than the {MAX_ITEMS} of one request")
    patterns: list[tuple[str, EndpointPattern]] = []
    for place, item in enumerate(items):
        field = f"endpoints[{place}]"
        if not isinstance(item, dict):
            raise InvalidRequest(f"{field}: {_shown(item)} is not an object with url and name")
        fields = cast("dict[str, object]", item)
        _check_fields(fields, ("url", "name"), "an endpoint")
        url, name = _text(field, "url", fields), _text(field, "name", fields)
        if name is not None and len(name) > MAX_ENDPOINT_NAME_CHARACTERS:
            raise InvalidRequest(f"{field}: the name has more than {MAX_ENDPOINT_NAME_CHARACTERS} characters")
        patterns.append((field, EndpointPattern(url=url, name=name)))
    return patterns


def _text(field: str, name: str, fields: Mapping[str, object]) -> str | None:
    """The text; null and an empty one count as absent."""
    value = fields.get(name)
    if not isinstance(value, str | None):
        raise InvalidRequest(f"{field}: the {name} {_shown(value)} is not a string")
    return value or None


def _check_fields(fields: Mapping[str, object], names: tuple[str, ...], what: str) -> None:
    unknown = next((name for name in fields if name not in names), None)
    if unknown is not None:
        raise InvalidRequest(f"{quoted(unknown)} does not belong to {what}, use {' and '.join(names)}")


def _shown(value: object) -> str:
    return quoted(msgspec.json.encode(value).decode())

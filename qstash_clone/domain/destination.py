"""The destination of a publish: from the raw request target to a URL, a URL group or the LLM upstream."""

import re
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

import msgspec

from qstash_clone.domain.names import is_name
from qstash_clone.domain.urls import Origin, has_http_scheme, origin_of
from qstash_clone.errors import InvalidRequest

Config: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Lines like those of a header: lower-case name, decoded value."""

_MERGED_SLASHES = re.compile(rb"(https?:/)([^/].*)", re.IGNORECASE | re.DOTALL)
_TOKEN_PARAMETER = b"qstash_token"
_CONFIG_PREFIX = b"upstash-"
_LLM_PATH = "api/llm"


class UrlDestination(msgspec.Struct, frozen=True):
    """One HTTP endpoint."""

    url: str
    """Exactly as published."""
    origin: Origin


class GroupDestination(msgspec.Struct, frozen=True):
    """Every endpoint of a URL group."""

    name: str


class LlmDestination(msgspec.Struct, frozen=True):
    """The configured LLM upstream, `api/llm`."""


Destination: TypeAlias = UrlDestination | GroupDestination | LlmDestination


class PathDestination(msgspec.Struct, frozen=True):
    """What a request target says: the destination, and what else its query carried."""

    destination: Destination
    config: Config = ()
    """The `upstash-*` parameters, in order."""
    token: bytes | None = None
    """Of the first `qstash_token` parameter; may hold any bytes."""


def parse_path_destination(rest: bytes, query: bytes) -> PathDestination:
    """The destination after the prefix of the raw path, with the raw query string (without `?`).

    Neither is decoded or normalised, so a destination's own escapes and slashes survive; the query belongs to the
    destination, except for `upstash-*` parameters and `qstash_token`. Raises `InvalidRequest` for what is no
    destination; see docs/protocol/destinations.md.
    """
    config: Config = ()
    token = None
    if query:
        query, config, token = _split_query(query)
    return PathDestination(_parse_destination(rest, query), config, token)


def parse_batch_destination(text: str) -> Destination:
    """The destination of a batch's item: a query in it is the destination's own. Raises as
    `parse_path_destination`."""
    return _url_destination(text) if has_http_scheme(text) else _parse_decoded(text.encode("utf-8", "replace"), b"")


def _parse_destination(rest: bytes, query: bytes) -> Destination:
    text = rest.decode("utf-8", "replace")
    if has_http_scheme(text):
        return _url_destination(f"{text}?{_decode(query)}" if query else text)
    merged = _MERGED_SLASHES.fullmatch(rest)
    if merged is not None:
        return _parse_destination(merged[1] + b"/" + merged[2], query)
    return _parse_decoded(rest, query)


def _parse_decoded(rest: bytes, query: bytes) -> Destination:
    text = _decode(unquote_to_bytes(rest))
    if has_http_scheme(text):
        return _url_destination(_append_query(text, _decode(query)))
    if text == _LLM_PATH:
        return LlmDestination()
    if not text:
        raise InvalidRequest("a non-empty destination must be provided")
    if is_name(text):
        return GroupDestination(text)
    return _url_destination(text)


def _url_destination(url: str) -> UrlDestination:
    try:
        return UrlDestination(url, origin_of(url))
    except ValueError as error:
        raise InvalidRequest(f"invalid destination url: {error}") from None


def _append_query(url: str, query: str) -> str:
    if not query:
        return url
    if "?" not in url:
        return f"{url}?{query}"
    return url + query if url.endswith(("?", "&")) else f"{url}&{query}"


def _decode(raw: bytes) -> str:
    # A URL has to be ASCII, so whatever else stands here is refused when the URL is checked.
    return raw.decode("utf-8", "replace")


def _split_query(query: bytes) -> tuple[bytes, Config, bytes | None]:
    lowered = query.lower()
    if _CONFIG_PREFIX not in lowered and _TOKEN_PARAMETER not in lowered and b"%" not in query:
        return query, (), None
    kept: list[bytes] = []
    config: list[tuple[bytes, bytes]] = []
    token = None
    for parameter in query.split(b"&"):
        raw_name, _, raw_value = parameter.partition(b"=")
        name = _unquote_form(raw_name).lower()
        if name.startswith(_CONFIG_PREFIX):
            config.append((name, _unquote_form(raw_value)))
        elif name == _TOKEN_PARAMETER:
            if token is None:
                # A plus sign stays one: tokens may be base 64 and hold no blanks.
                token = unquote_to_bytes(raw_value)
        else:
            kept.append(parameter)
    return b"&".join(kept), tuple(config), token


def _unquote_form(raw: bytes) -> bytes:
    return unquote_to_bytes(raw.replace(b"+", b" "))

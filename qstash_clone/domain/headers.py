"""The configuration of a publish: `Upstash-*` headers and query parameters into `PublishOptions`."""

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from qstash_clone.domain import retry_expression
from qstash_clone.domain.durations import parse_duration_ms
from qstash_clone.domain.header_names import check_value, forwardable_name, incoming_name
from qstash_clone.domain.message import Headers
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import InvalidRequest, NotSupportedYet, QuotaExceeded

HeaderLines: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Lower-case names and values, in order; each line of its own."""

MAX_LABELS = 64
MAX_LABEL_CHARACTERS = 256

_PREFIX = b"upstash-"
_FORWARD_PREFIX = b"upstash-forward-"
_FORWARD_PREFIX_BYTES = len(_FORWARD_PREFIX)
_CONTENT_TYPE = b"content-type"
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_MIN_TIMEOUT_MS = 1000
_INTEGER = re.compile(r"-?[0-9]{1,100}")
_LABEL_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What publishers get by default, and the most they may ask for."""

    default_retries: int
    max_retries: int
    default_timeout_ms: int
    max_timeout_ms: int
    max_delay_ms: int


class PublishOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a publisher wants done with a message, checked and complete."""

    method: str
    headers: Headers
    """To be sent to the destination, the content type included."""
    max_retries: int
    timeout_ms: int
    retry_delay_expression: str | None
    """As published; it parses."""
    delay_ms: int
    not_before_ms: int | None
    """Unix time; wins over `delay_ms`."""
    labels: tuple[str, ...]


class _Draft(msgspec.Struct):
    """`PublishOptions` in the making; None stands for a default that is not fixed here."""

    method: str = "POST"
    forwards_incoming: bool = False
    max_retries: int | None = None
    timeout_ms: int | None = None
    retry_delay_expression: str | None = None
    delay_ms: int = 0
    not_before_ms: int | None = None
    labels: tuple[str, ...] = ()


def parse_options(
    headers: HeaderLines, query_config: HeaderLines, limits: Limits, *, authorization_is_payload: bool = False
) -> PublishOptions:
    """The options of a publish: a header wins over the query parameter of the same name, the default comes last.

    `query_config` is that of `PathDestination`. `authorization_is_payload` says that the credential came by the
    query, which makes `Authorization` a header like any other for `Upstash-Header-Forward`.

    Raises `InvalidRequest` for a malformed header, `NotSupportedYet` for one that this release does not serve and
    `QuotaExceeded` for a value over its limit; see docs/reference/headers.md. Unknown `Upstash-*` lines are ignored.
    """
    settings: dict[bytes, bytes] = {}
    forwarded: list[tuple[str, str]] = []
    content_type = None
    for name, value in headers:
        if name.startswith(_PREFIX):
            _collect(name, value, settings, forwarded)
        elif name == _CONTENT_TYPE and content_type is None:
            content_type = value
    if query_config:
        settings, forwarded = _merge_query(query_config, settings, forwarded)

    draft = _Draft()
    for name, value in settings.items():
        header, parse = _SETTINGS[name]
        parse(draft, header, _text(check_value(header, value)))
    _check_limits(draft, limits, settings)

    if draft.forwards_incoming:
        forwarded = _with_incoming(headers, forwarded, authorization_is_payload)
    return PublishOptions(
        method=draft.method,
        headers=_with_content_type(content_type, forwarded),
        max_retries=limits.default_retries if draft.max_retries is None else draft.max_retries,
        timeout_ms=limits.default_timeout_ms if draft.timeout_ms is None else draft.timeout_ms,
        retry_delay_expression=draft.retry_delay_expression,
        delay_ms=draft.delay_ms,
        not_before_ms=draft.not_before_ms,
        labels=draft.labels,
    )


def _collect(name: bytes, value: bytes, settings: dict[bytes, bytes], forwarded: list[tuple[str, str]]) -> None:
    if name.startswith(_FORWARD_PREFIX):
        bare = name[_FORWARD_PREFIX_BYTES:]
        canonical = forwardable_name(bare) if bare else None
        if canonical is not None:
            forwarded.append((canonical, check_value(f"Upstash-Forward-{canonical}", value).decode("latin-1")))
    elif name in _SETTINGS:
        if name not in settings:
            settings[name] = value
        elif name in _JOINED:
            settings[name] += b"," + value


def _merge_query(
    query_config: HeaderLines, settings: dict[bytes, bytes], forwarded: list[tuple[str, str]]
) -> tuple[dict[bytes, bytes], list[tuple[str, str]]]:
    query_settings: dict[bytes, bytes] = {}
    query_forwarded: list[tuple[str, str]] = []
    for name, value in query_config:
        _collect(name, value, query_settings, query_forwarded)
    given = {name for name, _ in forwarded}
    return query_settings | settings, forwarded + [line for line in query_forwarded if line[0] not in given]


def _with_incoming(
    headers: HeaderLines, forwarded: list[tuple[str, str]], authorization_is_payload: bool
) -> list[tuple[str, str]]:
    given = {name for name, _ in forwarded}
    hop_by_hop = {b"connection"} if authorization_is_payload else {b"connection", b"authorization"}
    for name, value in headers:
        if name == b"connection":
            hop_by_hop.update(option.strip().lower() for option in value.split(b","))
    incoming: list[tuple[str, str]] = []
    for name, value in headers:
        canonical = None if name in hop_by_hop else incoming_name(name)
        if canonical is not None and canonical not in given:
            incoming.append((canonical, check_value(canonical, value).decode("latin-1")))
    return incoming + forwarded


def _with_content_type(content_type: bytes | None, forwarded: list[tuple[str, str]]) -> Headers:
    types = [line for line in forwarded if line[0] == "Content-Type"]
    if types:
        # One message has one content type, and the forwarded one is meant for the destination.
        return (types[0], *(line for line in forwarded if line[0] != "Content-Type"))
    if content_type is None:
        return tuple(forwarded)
    return (("Content-Type", check_value("Content-Type", content_type).decode("latin-1")), *forwarded)


def _check_limits(draft: _Draft, limits: Limits, settings: dict[bytes, bytes]) -> None:
    if draft.max_retries is not None and draft.max_retries > limits.max_retries:
        raise _over(settings, b"upstash-retries", f"{limits.max_retries}")
    if draft.timeout_ms is not None and draft.timeout_ms > limits.max_timeout_ms:
        raise _over(settings, b"upstash-timeout", f"{limits.max_timeout_ms // 1000}s")
    if draft.delay_ms > limits.max_delay_ms and draft.not_before_ms is None:
        raise _over(settings, b"upstash-delay", f"{limits.max_delay_ms // 1000}s")


def _over(settings: dict[bytes, bytes], name: bytes, maximum: str) -> QuotaExceeded:
    return QuotaExceeded(f"{_SETTINGS[name][0]}: {quoted(_text(settings[name]))} is over the maximum of {maximum}")


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _parse_method(draft: _Draft, header: str, text: str) -> None:
    method = text.upper()
    if method not in _METHODS:
        raise InvalidRequest(f"{header}: invalid method {quoted(text)}, use GET, POST, PUT, PATCH or DELETE")
    draft.method = method


def _parse_boolean(header: str, text: str) -> bool:
    flag = _BOOLEANS.get(text.lower())
    if flag is None:
        raise InvalidRequest(f"{header}: invalid boolean {quoted(text)}, use true or false")
    return flag


def _parse_header_forward(draft: _Draft, header: str, text: str) -> None:
    draft.forwards_incoming = _parse_boolean(header, text)


def _parse_duration(header: str, text: str) -> int:
    try:
        return parse_duration_ms(text)
    except ValueError:
        raise InvalidRequest(f"{header}: invalid duration {quoted(text)}") from None


def _parse_delay(draft: _Draft, header: str, text: str) -> None:
    draft.delay_ms = _parse_duration(header, text)


def _parse_timeout(draft: _Draft, header: str, text: str) -> None:
    draft.timeout_ms = _parse_duration(header, text)
    if draft.timeout_ms < _MIN_TIMEOUT_MS:
        raise InvalidRequest(f"{header}: {quoted(text)} is less than 1s")


def _parse_not_before(draft: _Draft, header: str, text: str) -> None:
    if _INTEGER.fullmatch(text) is None:
        raise InvalidRequest(f"{header}: invalid timestamp {quoted(text)}, use whole seconds of Unix time")
    draft.not_before_ms = max(0, int(text)) * 1000


def _parse_retries(draft: _Draft, header: str, text: str) -> None:
    if _INTEGER.fullmatch(text) is None or text.startswith("-"):
        raise InvalidRequest(f"{header}: invalid number {quoted(text)}, use an integer from 0 on")
    draft.max_retries = int(text)


def _parse_retry_delay(draft: _Draft, header: str, text: str) -> None:
    try:
        retry_expression.parse(text)
    except ValueError as error:
        raise InvalidRequest(f"{header}: invalid expression {quoted(text)}: {error}") from None
    draft.retry_delay_expression = text


def _parse_labels(draft: _Draft, header: str, text: str) -> None:
    labels = tuple(dict.fromkeys(label for item in text.split(",") if (label := item.strip())))
    if len(labels) > MAX_LABELS:
        raise InvalidRequest(f"{header}: {len(labels)} labels are more than the {MAX_LABELS} that a message may have")
    for label in labels:
        if len(label) > MAX_LABEL_CHARACTERS:
            raise InvalidRequest(f"{header}: {quoted(label)} has more than {MAX_LABEL_CHARACTERS} characters")
        if _LABEL_CONTROL.search(label) is not None:
            raise InvalidRequest(f"{header}: {quoted(label)} contains a control character")
    draft.labels = labels


def _parse_content_based_deduplication(draft: _Draft, header: str, text: str) -> None:
    if _parse_boolean(header, text):
        _refuse(draft, header, text)


def _refuse(draft: _Draft, header: str, text: str) -> None:
    raise NotSupportedYet(f"{header}: not supported yet")


_SettingParser: TypeAlias = Callable[[_Draft, str, str], None]

_SETTINGS: dict[bytes, tuple[str, _SettingParser]] = {
    header.lower().encode(): (header, parse)
    for header, parse in (
        ("Upstash-Method", _parse_method),
        ("Upstash-Header-Forward", _parse_header_forward),
        ("Upstash-Delay", _parse_delay),
        ("Upstash-Not-Before", _parse_not_before),
        ("Upstash-Retries", _parse_retries),
        ("Upstash-Retry-Delay", _parse_retry_delay),
        ("Upstash-Timeout", _parse_timeout),
        ("Upstash-Label", _parse_labels),
        ("Upstash-Content-Based-Deduplication", _parse_content_based_deduplication),
        ("Upstash-Callback", _refuse),
        ("Upstash-Failure-Callback", _refuse),
        ("Upstash-Deduplication-Id", _refuse),
        ("Upstash-Flow-Control-Key", _refuse),
        ("Upstash-Flow-Control-Value", _refuse),
        ("Upstash-Redact-Fields", _refuse),
        ("Upstash-Cron", _refuse),
    )
}
"""Every header that configures a publish. What is not listed is ignored, in particular the settings of a callback,
which mean nothing without its URL."""

_JOINED = frozenset({b"upstash-label"})
"""Lists, whose lines add up; of any other header the first line counts."""

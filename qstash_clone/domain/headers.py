"""The configuration of a publish: `Upstash-*` headers and query parameters into `PublishOptions`."""

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from qstash_clone.domain.callback_headers import CALLBACK_PREFIXES, CallbackKind, is_callback_setting, parse_callback
from qstash_clone.domain.cron import Cron, parse_cron
from qstash_clone.domain.deduplication import DeduplicationRequest, check_id, content_headers
from qstash_clone.domain.flow_control import parse_flow_control
from qstash_clone.domain.header_names import check_value, forwardable_name, incoming_name
from qstash_clone.domain.header_values import (
    HeaderLines,
    parse_boolean,
    parse_callback_url,
    parse_duration,
    parse_labels,
    parse_method,
    parse_not_before,
    parse_period,
    parse_retries,
    parse_retry_delay,
    parse_text,
    text_of,
)
from qstash_clone.domain.limits import MAX_DEDUPLICATION_WINDOW_MS, Limits, over_period, over_retries
from qstash_clone.domain.message import CallbackSpec, FlowControl, Headers, Redaction
from qstash_clone.domain.names import check_name
from qstash_clone.domain.redaction import parse_redaction

_PREFIX = b"upstash-"
_FORWARD_PREFIX = b"upstash-forward-"
_FORWARD_PREFIX_BYTES = len(_FORWARD_PREFIX)
_CONTENT_TYPE = b"content-type"
_FLOW_CONTROL = "Upstash-Flow-Control"


class PublishOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a publisher wants done with a message, checked and complete."""

    method: str
    headers: Headers
    """To be sent to the destination, the content type included."""
    max_retries: int
    timeout_ms: int
    has_timeout: bool = False
    """The publisher gave it; otherwise it is the default."""
    retry_delay_expression: str | None
    """As published; it parses."""
    delay_ms: int
    not_before_ms: int | None
    """Unix time; wins over `delay_ms`."""
    labels: tuple[str, ...]
    callback: CallbackSpec | None = None
    failure_callback: CallbackSpec | None = None
    redaction: Redaction | None = None
    deduplication: DeduplicationRequest | None = None
    flow_control: FlowControl | None = None
    cron: Cron | None = None
    """The publish asks for a schedule."""
    schedule_id: str | None = None
    """Of a schedule, and without one None; so is the next."""
    queue: str | None = None
    """Which messages of the schedule are members of."""
    is_paused: bool = False
    """The schedule does not fire before it is resumed."""


class _Draft(msgspec.Struct):
    """`PublishOptions` in the making; None stands for what was not given."""

    method: str = "POST"
    forwards_incoming: bool = False
    max_retries: int | None = None
    timeout_ms: int | None = None
    retry_delay_expression: str | None = None
    delay_ms: int = 0
    not_before_ms: int | None = None
    labels: tuple[str, ...] = ()
    callback_url: str | None = None
    failure_callback_url: str | None = None
    redaction: Redaction | None = None
    deduplication_id: str | None = None
    deduplicates_content: bool = False
    deduplication_window_ms: int | None = None
    flow_control_key: str | None = None
    flow_control_value: str | None = None
    cron: Cron | None = None
    schedule_id: str | None = None
    queue: str | None = None
    is_paused: bool = False


_NOTHING_GIVEN = _Draft()


def parse_options(
    headers: HeaderLines,
    query_config: HeaderLines,
    limits: Limits,
    *,
    authorization_is_payload: bool = False,
    group_headers: HeaderLines = (),
) -> PublishOptions:
    """The options of a publish: a header wins over the query parameter of the same name, that over the default which
    the URL group has (`group_headers`), and that of the service comes last.

    `query_config` is that of `PathDestination`. `authorization_is_payload` says that the credential came by the
    query, which makes `Authorization` a header like any other for `Upstash-Header-Forward`.

    Raises `InvalidRequest` for a malformed header and `QuotaExceeded` for a value over its limit; see
    docs/reference/headers.md. Unknown `Upstash-*` lines are ignored.
    """
    settings: dict[bytes, bytes] = {}
    forwarded: list[tuple[str, str]] = []
    of_callbacks: list[tuple[bytes, bytes]] = []
    content_type = None
    for name, value in headers:
        if name.startswith(_PREFIX):
            _collect(name, value, settings, forwarded, of_callbacks)
        elif name == _CONTENT_TYPE and not content_type:
            content_type = value
    if query_config:
        settings, forwarded, of_callbacks = _merge(query_config, settings, forwarded, of_callbacks)
    if group_headers:
        settings, forwarded, of_callbacks = _merge(group_headers, settings, forwarded, of_callbacks)
        if not content_type:
            content_type = next((value for name, value in group_headers if name == _CONTENT_TYPE), None)

    draft = _NOTHING_GIVEN
    callback = failure_callback = deduplication = flow_control = None
    if settings:
        draft = _parse_settings(settings)
        if draft.deduplication_id is not None:
            check_id("Upstash-Deduplication-Id", draft.deduplication_id, strict=limits.strict_deduplication_ids)
        if draft.callback_url is not None:
            callback = parse_callback(CallbackKind.CALLBACK, draft.callback_url, of_callbacks)
        if draft.failure_callback_url is not None:
            failure_callback = parse_callback(CallbackKind.FAILURE_CALLBACK, draft.failure_callback_url, of_callbacks)
        flow_control = parse_flow_control(_FLOW_CONTROL, draft.flow_control_key, draft.flow_control_value)
        if draft.cron is not None:
            _check_schedule(draft)
        _check_limits(draft, limits, settings)
        if draft.deduplication_id is not None or draft.deduplicates_content:
            deduplication = _deduplication(draft, limits, headers, query_config)
        if draft.forwards_incoming:
            forwarded = _with_incoming(headers, forwarded, authorization_is_payload)
    return PublishOptions(
        method=draft.method,
        headers=_with_content_type(content_type, forwarded),
        max_retries=limits.default_retries if draft.max_retries is None else draft.max_retries,
        timeout_ms=limits.default_timeout_ms if draft.timeout_ms is None else draft.timeout_ms,
        has_timeout=draft.timeout_ms is not None,
        retry_delay_expression=draft.retry_delay_expression,
        delay_ms=draft.delay_ms,
        not_before_ms=draft.not_before_ms,
        labels=draft.labels,
        callback=None if callback is None else callback.checked(limits),
        failure_callback=None if failure_callback is None else failure_callback.checked(limits),
        redaction=draft.redaction,
        deduplication=deduplication,
        flow_control=flow_control,
        cron=draft.cron,
        schedule_id=None if draft.cron is None else draft.schedule_id,
        queue=None if draft.cron is None else draft.queue,
        is_paused=draft.cron is not None and draft.is_paused,
    )


def is_configuration(name: bytes) -> bool:
    """Whether a lower-case header has a meaning for a publish beyond being forwarded."""
    return (
        name == _CONTENT_TYPE
        or name in _SETTINGS
        or (name.startswith(_FORWARD_PREFIX) and name != _FORWARD_PREFIX)
        or is_callback_setting(name)
    )


def says_something(name: bytes, value: bytes) -> bool:
    """Whether a line of a lower-case configuration header counts: some do not without a value."""
    return name not in _ABSENT_IF_EMPTY or bool(value.strip(b" \t"))


def _collect(
    name: bytes,
    value: bytes,
    settings: dict[bytes, bytes],
    forwarded: list[tuple[str, str]],
    of_callbacks: list[tuple[bytes, bytes]],
) -> None:
    if name.startswith(_FORWARD_PREFIX):
        bare = name[_FORWARD_PREFIX_BYTES:]
        canonical = forwardable_name(bare) if bare else None
        if canonical is not None:
            forwarded.append((canonical, check_value(f"Upstash-Forward-{canonical}", value).decode("latin-1")))
    elif name in _SETTINGS:
        if not says_something(name, value):
            return
        if name not in settings:
            settings[name] = value
        elif name in _JOINED:
            settings[name] += b"," + value
    elif name.startswith(CALLBACK_PREFIXES):
        of_callbacks.append((name, value))


def _merge(
    lines: HeaderLines,
    settings: dict[bytes, bytes],
    forwarded: list[tuple[str, str]],
    of_callbacks: list[tuple[bytes, bytes]],
) -> tuple[dict[bytes, bytes], list[tuple[str, str]], list[tuple[bytes, bytes]]]:
    """What is given already, and those of the lines whose names are not among it."""
    more_settings: dict[bytes, bytes] = {}
    more_forwarded: list[tuple[str, str]] = []
    more_of_callbacks: list[tuple[bytes, bytes]] = []
    for name, value in lines:
        _collect(name, value, more_settings, more_forwarded, more_of_callbacks)
    given = {name for name, _ in forwarded}
    given_of_callbacks = {name for name, _ in of_callbacks}
    return (
        more_settings | settings,
        forwarded + [line for line in more_forwarded if line[0] not in given],
        of_callbacks + [line for line in more_of_callbacks if line[0] not in given_of_callbacks],
    )


def _parse_settings(settings: dict[bytes, bytes]) -> _Draft:
    draft = _Draft()
    for name, value in settings.items():
        header, field, parse = _SETTINGS[name]
        setattr(draft, field, parse(header, text_of(check_value(header, value))))
    return draft


def _deduplication(
    draft: _Draft, limits: Limits, headers: HeaderLines, query_config: HeaderLines
) -> DeduplicationRequest:
    by_id = draft.deduplication_id is not None
    window_ms = draft.deduplication_window_ms
    scope = limits.content_hash_scope
    return DeduplicationRequest(
        window_ms=limits.deduplication_window_ms if window_ms is None else window_ms,
        id=draft.deduplication_id,
        scope=scope,
        content_headers=() if by_id else content_headers(scope, headers, query_config),
    )


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
    if not content_type:
        return tuple(forwarded)
    return (("Content-Type", check_value("Content-Type", content_type).decode("latin-1")), *forwarded)


def _check_limits(draft: _Draft, limits: Limits, settings: dict[bytes, bytes]) -> None:
    if draft.max_retries is not None and draft.max_retries > limits.max_retries:
        raise over_retries(*_given(settings, b"upstash-retries"), limits)
    if draft.timeout_ms is not None and draft.timeout_ms > limits.max_timeout_ms:
        raise over_period(*_given(settings, b"upstash-timeout"), limits.max_timeout_ms)
    if draft.delay_ms > limits.max_delay_ms and draft.not_before_ms is None:
        raise over_period(*_given(settings, b"upstash-delay"), limits.max_delay_ms)
    window_ms = draft.deduplication_window_ms
    if window_ms is not None and window_ms > MAX_DEDUPLICATION_WINDOW_MS:
        raise over_period(*_given(settings, b"upstash-deduplication-window"), MAX_DEDUPLICATION_WINDOW_MS)


def _check_schedule(draft: _Draft) -> None:
    if draft.schedule_id is not None:
        check_name("Upstash-Schedule-Id", draft.schedule_id)
    if draft.queue is not None:
        check_name("Upstash-Queue-Name", draft.queue)


def _given(settings: dict[bytes, bytes], name: bytes) -> tuple[str, str]:
    return _SETTINGS[name][0], text_of(settings[name])


_SettingParser: TypeAlias = Callable[[str, str], Any]

_SETTINGS: dict[bytes, tuple[str, str, _SettingParser]] = {
    header.lower().encode(): (header, field, parse)
    for header, field, parse in (
        ("Upstash-Method", "method", parse_method),
        ("Upstash-Header-Forward", "forwards_incoming", parse_boolean),
        ("Upstash-Delay", "delay_ms", parse_duration),
        ("Upstash-Not-Before", "not_before_ms", parse_not_before),
        ("Upstash-Retries", "max_retries", parse_retries),
        ("Upstash-Retry-Delay", "retry_delay_expression", parse_retry_delay),
        ("Upstash-Timeout", "timeout_ms", parse_period),
        ("Upstash-Label", "labels", parse_labels),
        ("Upstash-Callback", "callback_url", parse_callback_url),
        ("Upstash-Failure-Callback", "failure_callback_url", parse_callback_url),
        ("Upstash-Redact-Fields", "redaction", parse_redaction),
        ("Upstash-Deduplication-Id", "deduplication_id", parse_text),
        ("Upstash-Content-Based-Deduplication", "deduplicates_content", parse_boolean),
        ("Upstash-Deduplication-Window", "deduplication_window_ms", parse_period),
        ("Upstash-Flow-Control-Key", "flow_control_key", parse_text),
        ("Upstash-Flow-Control-Value", "flow_control_value", parse_text),
        ("Upstash-Cron", "cron", parse_cron),
        ("Upstash-Schedule-Id", "schedule_id", parse_text),
        ("Upstash-Queue-Name", "queue", parse_text),
        ("Upstash-Schedule-Paused", "is_paused", parse_boolean),
    )
}
"""Every header that configures a publish itself, and where its value goes. Any other is ignored."""

_ABSENT_IF_EMPTY = frozenset({b"upstash-method", b"upstash-callback", b"upstash-failure-callback"})
"""Sent without a value by clients that do not tell unset from empty, the Terraform provider for one."""

_JOINED = frozenset({b"upstash-label", b"upstash-redact-fields"})
"""Lists, whose lines add up; of any other header the first line counts."""

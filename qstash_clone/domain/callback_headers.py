"""`Upstash-Callback-*` and `Upstash-Failure-Callback-*`: how the result of an attempt is to be reported."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeAlias

import msgspec

from qstash_clone.domain.flow_control import parse_flow_control
from qstash_clone.domain.header_names import check_value, forwardable_name, is_header_name
from qstash_clone.domain.header_values import (
    HeaderLines,
    parse_duration,
    parse_labels,
    parse_method,
    parse_period,
    parse_retries,
    parse_retry_delay,
    parse_text,
    text_of,
)
from qstash_clone.domain.limits import Limits, over_period, over_retries
from qstash_clone.domain.message import CallbackSpec, FlowControl
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import InvalidRequest

CALLBACK_PREFIXES = (b"upstash-failure-callback-", b"upstash-callback-")


class CallbackKind(StrEnum):
    """The value is the header that holds the URL."""

    CALLBACK = "Upstash-Callback"
    FAILURE_CALLBACK = "Upstash-Failure-Callback"


class CallbackSettings(msgspec.Struct, kw_only=True):
    """A `CallbackSpec` in the making; well formed, its numbers not yet held against the limits."""

    kind: CallbackKind
    url: str
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    max_retries: int | None = None
    timeout_ms: int | None = None
    retry_delay_expression: str | None = None
    delay_ms: int = 0
    labels: tuple[str, ...] | None = None
    flow_control_key: str | None = None
    flow_control_value: str | None = None
    flow_control: FlowControl | None = None
    texts: dict[str, str] = {}
    """As they were given, by suffix."""

    def checked(self, limits: Limits) -> CallbackSpec:
        """What is to be stored. Raises `QuotaExceeded` for a value over its limit."""
        if self.max_retries is not None and self.max_retries > limits.max_retries:
            raise over_retries(*self._given("Retries"), limits)
        if self.timeout_ms is not None and self.timeout_ms > limits.max_timeout_ms:
            raise over_period(*self._given("Timeout"), limits.max_timeout_ms)
        if self.delay_ms > limits.max_delay_ms:
            raise over_period(*self._given("Delay"), limits.max_delay_ms)
        return CallbackSpec(
            url=self.url,
            method=self.method,
            headers=self.headers,
            max_retries=self.max_retries,
            # The default of now: the worker that plans the callback does not know it.
            timeout_ms=limits.default_timeout_ms if self.timeout_ms is None else self.timeout_ms,
            retry_delay_expression=self.retry_delay_expression,
            delay_ms=self.delay_ms,
            labels=self.labels,
            flow_control=self.flow_control,
        )

    def _given(self, suffix: str) -> tuple[str, str]:
        return f"{self.kind}-{suffix}", self.texts[suffix]


def is_callback_setting(name: bytes) -> bool:
    """Whether a lower-case header configures a callback, besides the one that holds its URL."""
    prefix = next((prefix for prefix in CALLBACK_PREFIXES if name.startswith(prefix)), None)
    if prefix is None:
        return False
    suffix = name[len(prefix) :]
    return suffix in _SETTINGS or (suffix.startswith(_FORWARD) and suffix != _FORWARD)


def parse_callback(kind: CallbackKind, url: str, lines: HeaderLines) -> CallbackSettings:
    """The settings of one kind among the lines of both; other suffixes than the known ones are ignored.

    Raises `InvalidRequest` for a malformed one.
    """
    prefix = kind.value.lower().encode() + b"-"
    settings = CallbackSettings(kind=kind, url=url)
    given: dict[bytes, bytes] = {}
    forwarded: list[tuple[str, str]] = []
    for name, value in lines:
        if not name.startswith(prefix):
            continue
        suffix = name[len(prefix) :]
        if suffix.startswith(_FORWARD):
            _forward(kind, suffix[len(_FORWARD) :], value, forwarded)
        elif suffix not in given:
            given[suffix] = value
        elif suffix == _LABEL:
            given[suffix] += b"," + value
    for suffix, (spelling, field, parse) in _SETTINGS.items():
        value = given.get(suffix)
        if value is not None:
            header = f"{kind}-{spelling}"
            text = text_of(check_value(header, value))
            settings.texts[spelling] = text
            setattr(settings, field, parse(header, text))
    settings.headers = tuple(forwarded)
    settings.flow_control = parse_flow_control(
        f"{kind}-Flow-Control", settings.flow_control_key, settings.flow_control_value
    )
    return settings


def _forward(kind: CallbackKind, name: bytes, value: bytes, forwarded: list[tuple[str, str]]) -> None:
    if not name:
        return
    if not is_header_name(name):
        raise InvalidRequest(f"{kind}-Forward-*: {quoted(name.decode('utf-8', 'replace'))} is not a header name")
    canonical = forwardable_name(name)
    if canonical is not None:
        forwarded.append((canonical, check_value(f"{kind}-Forward-{canonical}", value).decode("latin-1")))


_FORWARD = b"forward-"
_LABEL = b"label"
_SettingParser: TypeAlias = Callable[[str, str], Any]
_SETTINGS: dict[bytes, tuple[str, str, _SettingParser]] = {
    spelling.lower().encode(): (spelling, field, parse)
    for spelling, field, parse in (
        ("Method", "method", parse_method),
        ("Retries", "max_retries", parse_retries),
        ("Retry-Delay", "retry_delay_expression", parse_retry_delay),
        ("Timeout", "timeout_ms", parse_period),
        ("Delay", "delay_ms", parse_duration),
        ("Label", "labels", parse_labels),
        ("Flow-Control-Key", "flow_control_key", parse_text),
        ("Flow-Control-Value", "flow_control_value", parse_text),
    )
}

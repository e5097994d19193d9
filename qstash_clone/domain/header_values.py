"""The values of configuration headers: text into what it means, or an error that names the header."""

import re
from collections.abc import Sequence
from typing import TypeAlias

from qstash_clone.domain import retry_expression
from qstash_clone.domain.durations import parse_duration_ms
from qstash_clone.domain.quoting import quoted
from qstash_clone.domain.urls import origin_of
from qstash_clone.errors import InvalidRequest

HeaderLines: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Lower-case names and values, in order; each line of its own."""

MAX_LABELS = 64
MAX_LABEL_CHARACTERS = 256

_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_MIN_PERIOD_MS = 1000
_INTEGER = re.compile(r"-?[0-9]{1,100}")
_LABEL_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def text_of(value: bytes) -> str:
    """A value as text: UTF-8, or latin-1 if it is none."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def parse_text(header: str, text: str) -> str:
    """The text itself, to be judged together with other headers."""
    return text


def parse_method(header: str, text: str) -> str:
    method = text.upper()
    if method not in _METHODS:
        raise InvalidRequest(f"{header}: invalid method {quoted(text)}, use GET, POST, PUT, PATCH or DELETE")
    return method


def parse_boolean(header: str, text: str) -> bool:
    flag = _BOOLEANS.get(text.lower())
    if flag is None:
        raise InvalidRequest(f"{header}: invalid boolean {quoted(text)}, use true or false")
    return flag


def parse_duration(header: str, text: str) -> int:
    """Milliseconds."""
    try:
        return parse_duration_ms(text)
    except ValueError:
        raise InvalidRequest(f"{header}: invalid duration {quoted(text)}") from None


def parse_period(header: str, text: str) -> int:
    """Milliseconds, at least a second."""
    period_ms = parse_duration(header, text)
    if period_ms < _MIN_PERIOD_MS:
        raise InvalidRequest(f"{header}: {quoted(text)} is less than 1s")
    return period_ms


def parse_not_before(header: str, text: str) -> int:
    """Unix time in milliseconds, of whole seconds; what is before 1970 is 1970."""
    if _INTEGER.fullmatch(text) is None:
        raise InvalidRequest(f"{header}: invalid timestamp {quoted(text)}, use whole seconds of Unix time")
    return max(0, int(text)) * 1000


def parse_retries(header: str, text: str) -> int:
    if _INTEGER.fullmatch(text) is None or text.startswith("-"):
        raise InvalidRequest(f"{header}: invalid number {quoted(text)}, use an integer from 0 on")
    return int(text)


def parse_retry_delay(header: str, text: str) -> str:
    """The expression as it was written, once it parses."""
    try:
        retry_expression.parse(text)
    except ValueError as error:
        raise InvalidRequest(f"{header}: invalid expression {quoted(text)}: {error}") from None
    return text


def parse_labels(header: str, text: str) -> tuple[str, ...]:
    """The items of a list in order, without blanks around them, empty ones and repetitions."""
    labels = tuple(dict.fromkeys(label for item in text.split(",") if (label := item.strip())))
    if len(labels) > MAX_LABELS:
        raise InvalidRequest(f"{header}: {len(labels)} labels are more than the {MAX_LABELS} that a message may have")
    for label in labels:
        if len(label) > MAX_LABEL_CHARACTERS:
            raise InvalidRequest(f"{header}: {quoted(label)} has more than {MAX_LABEL_CHARACTERS} characters")
        if _LABEL_CONTROL.search(label) is not None:
            raise InvalidRequest(f"{header}: {quoted(label)} contains a control character")
    return labels


def parse_callback_url(header: str, text: str) -> str:
    """The URL as it was written, once it may be called."""
    try:
        origin_of(text)
    except ValueError as error:
        what = header.removeprefix("Upstash-").replace("-", " ").lower()
        raise InvalidRequest(f"invalid {what} url: {error}") from None
    return text

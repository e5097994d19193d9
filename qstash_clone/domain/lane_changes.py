"""Changes of queues and flow-control keys as callers ask for them, in JSON or in the query, into checked values."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from qstash_clone.domain.flow_control import MAX_FLOW_LIMIT, MAX_FLOW_PERIOD_S
from qstash_clone.domain.header_values import parse_boolean
from qstash_clone.domain.names import check_name
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import InvalidRequest, QuotaExceeded

DEFAULT_PERIOD_S: Final = 1

_INTEGER = re.compile(r"[0-9]{1,18}")
_QUEUE_FIELDS: Final = ("queueName", "parallelism", "paused")
_PIN_NAMES: Final = ("parallelism", "rate", "period")
_UNPIN_NAMES: Final = ("parallelism", "rate")

Parameters = Sequence[tuple[str, str]]
"""Of a query, decoded."""


class QueueChange(msgspec.Struct, frozen=True, kw_only=True):
    """A queue to be created or changed; None leaves a value as it is."""

    name: str
    parallelism: int | None
    is_paused: bool | None


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a flow-control key to be fixed; None leaves one as it is."""

    parallelism: int | None
    rate: int | None
    period_ms: int


class Unpin(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a flow-control key to be left to its messages again."""

    parallelism: bool
    rate: bool


def parse_queue_change(body: Mapping[str, object], max_parallelism: int) -> QueueChange:
    """What the body of an upsert asks for; null counts as absent.

    Raises `InvalidRequest` for an unknown field or a malformed value, `QuotaExceeded` for too high a parallelism.
    """
    _check_names(body, _QUEUE_FIELDS, "a field of a queue")
    name, parallelism, is_paused = (body.get(field) for field in _QUEUE_FIELDS)
    if not isinstance(name, str):
        raise InvalidRequest(f"queueName: {_shown(name)} is not a string, give the name of the queue")
    if not isinstance(is_paused, bool | None):
        raise InvalidRequest(f"paused: invalid boolean {_shown(is_paused)}, use true or false")
    return QueueChange(
        name=check_name("queueName", name), parallelism=_parallelism(parallelism, max_parallelism), is_paused=is_paused
    )


def _parallelism(value: object, maximum: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidRequest(f"parallelism: invalid number {_shown(value)}, use an integer from 1 on")
    if value > maximum:
        raise QuotaExceeded(f"parallelism: {_shown(value)} is over the maximum of {maximum}")
    return value


def _shown(value: object) -> str:
    return quoted(msgspec.json.encode(value).decode())


def parse_pin(parameters: Parameters) -> Pin:
    """What a query asks to pin. Raises `InvalidRequest` for a malformed one, and for one that names no limit."""
    given = _single_values(parameters, _PIN_NAMES)
    parallelism = _limit(given, "parallelism", MAX_FLOW_LIMIT)
    rate = _limit(given, "rate", MAX_FLOW_LIMIT)
    period_s = _limit(given, "period", MAX_FLOW_PERIOD_S)
    if rate is None and period_s is not None:
        raise InvalidRequest("period: it needs a rate, give rate too")
    if parallelism is None and rate is None:
        raise InvalidRequest("there is nothing to pin: give parallelism, or rate and period")
    return Pin(parallelism=parallelism, rate=rate, period_ms=(period_s or DEFAULT_PERIOD_S) * 1000)


def _limit(given: Mapping[str, str], name: str, maximum: int) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if _INTEGER.fullmatch(text) is None or not 1 <= int(text) <= maximum:
        raise InvalidRequest(f"{name}: invalid number {quoted(text)}, use an integer from 1 to {maximum}")
    return int(text)


def parse_unpin(parameters: Parameters) -> Unpin:
    """What a query asks to unpin; without parameters nothing. Raises `InvalidRequest` for a malformed one."""
    given = _single_values(parameters, _UNPIN_NAMES)
    parallelism, rate = (name in given and parse_boolean(name, given[name]) for name in _UNPIN_NAMES)
    return Unpin(parallelism=parallelism, rate=rate)


def parse_search(parameters: Parameters) -> str:
    """The text that keys have to contain; empty without one. Raises `InvalidRequest` for another parameter."""
    return _single_values(parameters, ("search",)).get("search", "")


def _single_values(parameters: Parameters, names: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, text in parameters:
        if given.setdefault(name, text) != text:
            raise InvalidRequest(f"{quoted(name)} is given twice with different values")
    _check_names(given, names, "a parameter here")
    return given


def _check_names(given: Mapping[str, object], names: Sequence[str], what: str) -> None:
    """A mistyped name must not silently leave the default."""
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        raise InvalidRequest(f"{quoted(unknown)} is not {what}, use {', '.join(names)}")

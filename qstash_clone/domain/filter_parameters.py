"""Filters as callers write them: query parameters, or a JSON body of the same names, into a `Filter`.

What cannot be understood is an error, because a mistyped filter of a bulk operation must not select everything.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import msgspec

from qstash_clone.domain.filters import Filter
from qstash_clone.domain.lifecycle import LogEvent
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import InvalidRequest
from qstash_clone.ids import MessageId, parse_message_id

_COMMA = re.compile(",")
_BEFORE_URL = re.compile(r",\s*(?=https?://)", re.IGNORECASE)
_BEFORE_PATH = re.compile(r",\s*(?=/)")
_DATE = re.compile(r"[0-9]{1,15}")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_MAX_COUNT_DIGITS = 18
_ID_LISTS = ("messageIds", "dlqIds")
_ALIASES = {"callerIP": "callerIp"}
_ORDERS = {"earliestFirst": False, "latestFirst": True}
_EVENTS = {event.wire_name: frozenset({event}) for event in LogEvent} | {
    "IN_PROGRESS": frozenset({LogEvent.ACTIVE, LogEvent.RETRY, LogEvent.ERROR}),
    "CANCELLED": frozenset({LogEvent.CANCELED}),
}

NOTHING = Filter(message_ids=frozenset())
"""Selects no message at all."""

Texts = list[str]


class FilterRules(msgspec.Struct, frozen=True, kw_only=True):
    """What one endpoint takes."""

    names: frozenset[str]
    ignored: frozenset[str]
    """Accepted without an effect."""
    max_count: int
    default_count: int | None
    """None: no bound."""
    newest_first: bool = False
    """Unless `order` says otherwise."""


_OF_MESSAGES = frozenset(
    {"url", "topicName", "queueName", "scheduleId", "label", "callerIp", "flowControlKey", "fromDate", "toDate"}
)
_OF_LOGS = _OF_MESSAGES | {
    "messageId", "messageIds", "host", "path", "state", "cursor", "count", "order", "trimBody"
}  # fmt: skip
_OF_DEAD_LETTERS = _OF_MESSAGES | {"messageId", "dlqIds", "responseStatus", "cursor", "count"}
_OBSOLETE = frozenset({"api"})

EVENTS = FilterRules(names=_OF_LOGS, ignored=_OBSOLETE, max_count=1000, default_count=1000, newest_first=True)
LOGS = FilterRules(names=_OF_LOGS, ignored=_OBSOLETE, max_count=100, default_count=100, newest_first=True)
DEAD_LETTERS = FilterRules(
    names=_OF_DEAD_LETTERS | {"order", "source", "trimBody"}, ignored=_OBSOLETE, max_count=100, default_count=100
)
DEAD_LETTERS_BULK = FilterRules(names=_OF_DEAD_LETTERS, ignored=_OBSOLETE, max_count=100, default_count=100)
CANCEL = FilterRules(
    names=_OF_MESSAGES | {"messageIds", "host", "path", "count"},
    ignored=_OBSOLETE | {"cursor"},
    max_count=500,
    default_count=None,
)


class ParsedFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What a request selects, and how it wants to see it."""

    selection: Filter
    """With `messageIds`, these alone; with `dlqIds`, nothing, so that nobody takes their absence here for all."""
    message_ids: tuple[MessageId, ...] | None = None
    """From `messageIds`, in order, without repetitions and without what is no id; empty means nothing."""
    dlq_ids: tuple[str, ...] | None = None
    """From `dlqIds`, in order and without repetitions; empty means nothing."""
    cursor: str | None = None
    count: int | None
    """None: as many as there are."""
    newest_first: bool
    trim_body_bytes: int | None = None
    """Negative: leave bodies out."""


def parse_filter(
    query: Sequence[tuple[str, str]], rules: FilterRules, body: Mapping[str, object] | None = None
) -> ParsedFilter:
    """The filter of a request from its decoded query parameters and, where a body is taken, its JSON object.

    A name in the query wins over the same name in the body. `qstash_token` and `upstash-*` are no filters. Raises
    `InvalidRequest` for an unknown name, an empty or malformed value, and a single value given twice.
    """
    given = _of_query(query, rules)
    for name, texts in _of_body(body or {}, rules).items():
        given.setdefault(name, texts)
    return _Reader(given, rules).read()


def _of_query(query: Sequence[tuple[str, str]], rules: FilterRules) -> dict[str, Texts]:
    given: dict[str, Texts] = {}
    for name, text in query:
        if name == "qstash_token" or name.lower().startswith("upstash-"):
            continue
        wire_name = _known(name, rules)
        if wire_name is not None:
            given.setdefault(wire_name, []).append(text)
    return given


def _of_body(body: Mapping[str, object], rules: FilterRules) -> dict[str, Texts]:
    given: dict[str, Texts] = {}
    for name, value in body.items():
        wire_name = _known(name, rules)
        if wire_name is not None:
            given.setdefault(wire_name, []).extend(_texts(wire_name, value))
    return given


def _known(name: str, rules: FilterRules) -> str | None:
    """The name by which a parameter goes here, None for one that is ignored."""
    wire_name = _ALIASES.get(name, name)
    if wire_name in rules.ignored:
        return None
    if wire_name not in rules.names:
        raise InvalidRequest(f"{quoted(name)} is not a filter here")
    return wire_name


def _texts(name: str, value: object) -> Texts:
    if value is None and name in _ID_LISTS:
        # How some clients write a list without items.
        return []
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    texts = [_text(name, item) for item in values]
    if not texts and name not in _ID_LISTS:
        raise InvalidRequest(f"{name}: the list is empty")
    return texts


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InvalidRequest(f"{name}: give a string, an integer or a list of these")


class _Reader:
    """The texts of one request by name, each checked when it is read."""

    def __init__(self, given: dict[str, Texts], rules: FilterRules) -> None:
        self._given = given
        self._rules = rules

    def read(self) -> ParsedFilter:
        selection = self._selection()
        message_ids = self._message_ids("messageIds")
        dlq_ids = self._list("dlqIds", _COMMA)
        if message_ids is not None:
            selection = Filter(message_ids=frozenset(message_ids))
        elif dlq_ids is not None or self._single("source") == "workflow":
            # The source is another product, whose messages are not here.
            selection = NOTHING
        return ParsedFilter(
            selection=selection,
            message_ids=message_ids,
            dlq_ids=None if dlq_ids is None else tuple(dlq_ids),
            cursor=self._single("cursor"),
            count=self._count(),
            newest_first=self._newest_first(),
            trim_body_bytes=self._integer("trimBody"),
        )

    def _selection(self) -> Filter:
        message_ids = self._message_ids("messageId")
        return Filter(
            message_ids=None if message_ids is None else frozenset(message_ids),
            urls=self._set("url", _BEFORE_URL),
            hosts=self._set("host", _COMMA, str.lower),
            paths=self._set("path", _BEFORE_PATH),
            url_groups=self._set("topicName", _COMMA),
            queue_names=self._set("queueName", _COMMA),
            schedule_ids=self._set("scheduleId", _COMMA),
            flow_control_keys=self._set("flowControlKey", _COMMA),
            labels=self._set("label", _COMMA),
            caller_ips=self._set("callerIp", _COMMA),
            events=self._events(),
            response_statuses=self._statuses(),
            from_ms=self._date("fromDate"),
            to_ms=self._date("toDate"),
        )

    def _list(self, name: str, separator: re.Pattern[str]) -> list[str] | None:
        """The values in order, each once; None if the name is absent."""
        texts = self._given.get(name)
        if texts is None:
            return None
        values = [value.strip() for text in texts for value in separator.split(text)]
        if "" in values:
            raise InvalidRequest(f"{name}: the value is empty")
        return list(dict.fromkeys(values))

    def _set(
        self, name: str, separator: re.Pattern[str], normal: Callable[[str], str] | None = None
    ) -> frozenset[str] | None:
        values = self._list(name, separator)
        if values is None:
            return None
        return frozenset(values if normal is None else map(normal, values))

    def _message_ids(self, name: str) -> tuple[MessageId, ...] | None:
        texts = self._list(name, _COMMA)
        if texts is None:
            return None
        ids = (parse_message_id(text) for text in texts)
        return tuple(message_id for message_id in ids if message_id is not None)

    def _events(self) -> frozenset[LogEvent] | None:
        names = self._list("state", _COMMA)
        if names is None:
            return None
        unknown = next((name for name in names if name.upper() not in _EVENTS), None)
        if unknown is not None:
            raise InvalidRequest(f"state: invalid state {quoted(unknown)}, use one of {', '.join(_EVENTS)}")
        return frozenset[LogEvent]().union(*(_EVENTS[name.upper()] for name in names))

    def _statuses(self) -> frozenset[int] | None:
        texts = self._list("responseStatus", _COMMA)
        return None if texts is None else frozenset(_parse_integer("responseStatus", text) for text in texts)

    def _single(self, name: str) -> str | None:
        texts = self._given.get(name)
        if texts is None:
            return None
        if len(set(texts)) > 1:
            raise InvalidRequest(f"{name}: given twice with different values")
        text = texts[0].strip()
        if not text:
            raise InvalidRequest(f"{name}: the value is empty")
        return text

    def _integer(self, name: str) -> int | None:
        text = self._single(name)
        return None if text is None else _parse_integer(name, text)

    def _date(self, name: str) -> int | None:
        text = self._single(name)
        if text is None:
            return None
        digits = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
        if _DATE.fullmatch(digits) is None:
            raise InvalidRequest(f"{name}: invalid timestamp {quoted(text)}, use milliseconds of Unix time")
        return int(digits)

    def _count(self) -> int | None:
        text = self._single("count")
        if text is None:
            return self._rules.default_count
        if text.isascii() and text.isdigit() and len(text) <= _MAX_COUNT_DIGITS and int(text) >= 1:
            return min(int(text), self._rules.max_count)
        raise InvalidRequest(f"count: invalid number {quoted(text)}, use an integer from 1 on")

    def _newest_first(self) -> bool:
        text = self._single("order")
        if text is None:
            return self._rules.newest_first
        if text not in _ORDERS:
            raise InvalidRequest(f"order: invalid value {quoted(text)}, use earliestFirst or latestFirst")
        return _ORDERS[text]


def _parse_integer(name: str, text: str) -> int:
    if _INTEGER.fullmatch(text) is None:
        raise InvalidRequest(f"{name}: invalid number {quoted(text)}, use an integer")
    return int(text)

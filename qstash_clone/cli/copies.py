"""What is copied from one service to another: how each kind of object is compared, and how it is made again."""

from base64 import b64decode
from binascii import Error as BinasciiError
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, TypeAlias, cast
from urllib.parse import quote

from qstash_clone.cli.remote import Fields, HeaderLine, RemoteService

Definition: TypeAlias = dict[str, object]
"""The parts of an object that a copy has as well, in a form that can be compared."""
Endpoint: TypeAlias = tuple[str, str | None]
"""URL, and name if it has one."""
Endpoints: TypeAlias = dict[Endpoint, None]

_REDACTED: Final = "REDACTED:"


class CannotRebuild(Exception):
    """What a service shows of an object is not enough to make it again."""


class Kind(Protocol):
    """A kind of object."""

    noun: str
    path: str

    def name_of(self, shown: Fields) -> str: ...

    def definition_of(self, shown: Fields) -> Definition:
        """Raises `CannotRebuild` for one that is not as the API describes it."""
        ...

    def unknown_parts(self, shown: Fields) -> list[str]:
        """What it has beyond what this release knows of."""
        ...

    def check(self, wanted: Definition) -> None:
        """Raises `CannotRebuild` if the definition is not enough to make one like it."""
        ...

    def put(self, target: RemoteService, name: str, wanted: Definition, here: Definition | None) -> None:
        """Make one, or make the one that is `here` like it. Raises as `RemoteService.send`."""
        ...


class UrlGroups:
    """Endpoints with their names, and default headers if the source shows them."""

    noun = "url-group"
    path = "/v2/topics"
    _SHOWN: Final = frozenset({"name", "createdAt", "updatedAt", "endpoints", "headers"})

    def name_of(self, shown: Fields) -> str:
        return _text(shown, "name")

    def definition_of(self, shown: Fields) -> Definition:
        endpoints = [(_text(one, "url"), _optional_text(one, "name")) for one in _objects(shown, "endpoints")]
        # In their order, but equal in any: it only decides the order of the answer to a publish.
        definition: Definition = {"endpoints": dict.fromkeys(endpoints)}
        if shown.get("headers"):
            definition["headers"] = _header_map(shown, "headers")
        return definition

    def unknown_parts(self, shown: Fields) -> list[str]:
        return _unknown(shown, self._SHOWN)

    def check(self, wanted: Definition) -> None:
        if not wanted["endpoints"]:
            raise CannotRebuild("it has no endpoint, and here every group has one")

    def put(self, target: RemoteService, name: str, wanted: Definition, here: Definition | None) -> None:
        # What both have stays all the time: a publish meanwhile must not miss an endpoint.
        endpoints = cast("Endpoints", wanted["endpoints"])
        if here is None or here["endpoints"] != endpoints:
            self._add(target, name, endpoints)
            self._remove_others(target, name, endpoints)
        if "headers" in wanted:
            target.send("PATCH", _path(self.path, name), fields={"headers": wanted["headers"]})

    def _add(self, target: RemoteService, name: str, endpoints: Iterable[Endpoint]) -> None:
        target.send("POST", _path(self.path, name) + "/endpoints", fields={"endpoints": _endpoint_fields(endpoints)})

    def _remove_others(self, target: RemoteService, name: str, endpoints: Iterable[Endpoint]) -> None:
        found = target.find(_path(self.path, name))
        others = [] if found is None else self._others(found, endpoints)
        if not others:
            return
        target.send("DELETE", _path(self.path, name) + "/endpoints", fields={"endpoints": _endpoint_fields(others)})
        urls = {url for url, _ in others}
        # A name is only got rid of together with its endpoint.
        unnamed = [endpoint for endpoint in endpoints if endpoint[0] in urls]
        if unnamed:
            self._add(target, name, unnamed)

    def _others(self, found: Fields, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
        there = cast("Endpoints", self.definition_of(found)["endpoints"])
        return [endpoint for endpoint in there if endpoint not in endpoints]


class Queues:
    """Parallelism and pause."""

    noun = "queue"
    path = "/v2/queues"
    _SHOWN: Final = frozenset({"name", "createdAt", "updatedAt", "parallelism", "paused", "lag"})

    def name_of(self, shown: Fields) -> str:
        return _text(shown, "name")

    def definition_of(self, shown: Fields) -> Definition:
        return {"parallelism": _integer(shown, "parallelism"), "paused": _flag(shown, "paused")}

    def unknown_parts(self, shown: Fields) -> list[str]:
        return _unknown(shown, self._SHOWN)

    def check(self, wanted: Definition) -> None:
        if not wanted["parallelism"]:
            raise CannotRebuild("its parallelism is not shown")

    def put(self, target: RemoteService, name: str, wanted: Definition, here: Definition | None) -> None:
        target.send("POST", self.path, fields={"queueName": name, **wanted})


class Schedules:
    """Everything that makes the messages of a schedule what they are; whether it is paused is decided for each copy."""

    noun = "schedule"
    path = "/v2/schedules"
    _TEXTS: Final = {
        "cron": b"Upstash-Cron",
        "method": b"Upstash-Method",
        "retryDelayExpression": b"Upstash-Retry-Delay",
        "callback": b"Upstash-Callback",
        "failureCallback": b"Upstash-Failure-Callback",
        "queueName": b"Upstash-Queue-Name",
    }
    _NUMBERS: Final = {
        "retries": (b"Upstash-Retries", b"%d"),
        "delay": (b"Upstash-Delay", b"%ds"),
        "timeout": (b"Upstash-Timeout", b"%ds"),
    }
    _HEADER_MAPS: Final = {
        "header": ("", b"Upstash-Forward-"),
        "callbackHeader": (" of its callback", b"Upstash-Callback-Forward-"),
        "failureCallbackHeader": (" of its failure callback", b"Upstash-Failure-Callback-Forward-"),
    }
    _FLOW_CONTROL: Final = ("parallelism", "rate", "period")
    _SHOWN: Final = frozenset(
        {
            *_TEXTS, *_NUMBERS, *_HEADER_MAPS, *_FLOW_CONTROL,
            "scheduleId", "destination", "body", "bodyBase64", "label", "labels", "flowControlKey", "isPaused",
            "createdAt", "callerIP", "callerIp", "lastScheduleTime", "nextScheduleTime", "lastScheduleStates", "error",
        }
    )  # fmt: skip

    def name_of(self, shown: Fields) -> str:
        return _text(shown, "scheduleId")

    def definition_of(self, shown: Fields) -> Definition:
        label = _optional_text(shown, "label")
        key = _optional_text(shown, "flowControlKey")
        return {
            "destination": _text(shown, "destination"),
            **{name: (_optional_text(shown, name) or "").strip() for name in self._TEXTS},
            "retries": _integer(shown, "retries"),
            **{name: _integer(shown, name) or None for name in ("delay", "timeout")},
            **{name: _header_map(shown, name) for name in self._HEADER_MAPS},
            "body": _body(shown),
            "labels": _texts(shown, "labels") or ([label] if label else []),
            "flowControlKey": key,
            **{name: _integer(shown, name) or None if key else None for name in self._FLOW_CONTROL},
        }

    def unknown_parts(self, shown: Fields) -> list[str]:
        return _unknown(shown, self._SHOWN)

    def check(self, wanted: Definition) -> None:
        hidden = ["its body"] if cast("bytes", wanted["body"]).startswith(_REDACTED.encode()) else []
        for field, (whose, _) in self._HEADER_MAPS.items():
            for name, values in cast("Mapping[str, list[str]]", wanted[field]).items():
                if any(value.startswith(_REDACTED) for value in values):
                    hidden.append(f"the header {name}{whose}")
        if hidden:
            raise CannotRebuild(f"redacted: {', '.join(hidden)}")
        missing = [name for name in ("cron", "method") if not wanted[name]]
        if missing:
            raise CannotRebuild(f"not shown: {', '.join(missing)}")

    def put(self, target: RemoteService, name: str, wanted: Definition, here: Definition | None) -> None:
        """Made active or paused in one step, as `isPaused` of the definition says: an instant may pass at any time."""
        # In one segment, because a query of the destination may have parameters that mean something to the service.
        path = f"{self.path}/{quote(cast('str', wanted['destination']), safe='')}"
        lines = self._header_lines(name, wanted)
        target.send("POST", path, headers=lines, body=cast("bytes", wanted["body"]))

    def _header_lines(self, name: str, wanted: Definition) -> list[HeaderLine]:
        lines: list[HeaderLine] = [(b"Upstash-Schedule-Id", name.encode())]
        if wanted["isPaused"]:
            lines.append((b"Upstash-Schedule-Paused", b"true"))
        lines += [(header, _encoded(wanted[part])) for part, header in self._TEXTS.items() if wanted[part]]
        for part, (header, form) in self._NUMBERS.items():
            if wanted[part] is not None:
                lines.append((header, form % cast("int", wanted[part])))
        for part, (_, prefix) in self._HEADER_MAPS.items():
            for header, values in cast("Mapping[str, list[str]]", wanted[part]).items():
                lines += [(prefix + header.encode(), _encoded(value)) for value in values]
        if wanted["labels"]:
            lines.append((b"Upstash-Label", _encoded(",".join(cast("list[str]", wanted["labels"])))))
        if wanted["flowControlKey"]:
            limits = [f"{part}={wanted[part]}" for part in self._FLOW_CONTROL if wanted[part] is not None]
            lines.append((b"Upstash-Flow-Control-Key", _encoded(wanted["flowControlKey"])))
            lines.append((b"Upstash-Flow-Control-Value", ", ".join(limits).encode()))
        return lines


def _path(path: str, name: str) -> str:
    return f"{path}/{quote(name, safe='')}"


def _endpoint_fields(endpoints: Iterable[Endpoint]) -> list[Fields]:
    return [{"url": url} if name is None else {"url": url, "name": name} for url, name in endpoints]


def _encoded(value: object) -> bytes:
    return cast("str", value).encode()


def _unknown(shown: Fields, known: frozenset[str]) -> list[str]:
    return sorted(name for name, value in shown.items() if name not in known and value not in (None, "", [], {}))


def _body(shown: Fields) -> bytes:
    in_base64 = _optional_text(shown, "bodyBase64")
    if in_base64 is None:
        return (_optional_text(shown, "body") or "").encode()
    try:
        return b64decode(in_base64, validate=True)
    except BinasciiError:
        raise CannotRebuild("bodyBase64 is not in base64") from None


def _text(shown: Fields, name: str) -> str:
    text = _optional_text(shown, name)
    if text is None:
        raise CannotRebuild(f"not shown: {name}")
    return text


def _optional_text(shown: Fields, name: str) -> str | None:
    return _typed(shown, name, str, "a text") or None


def _integer(shown: Fields, name: str) -> int | None:
    value = _typed(shown, name, int, "a whole number")
    if isinstance(value, bool):
        raise CannotRebuild(f"{name} is not a whole number")
    return value


def _flag(shown: Fields, name: str) -> bool:
    return _typed(shown, name, bool, "true or false") or False


def _texts(shown: Fields, name: str) -> list[str]:
    values: list[Any] = _typed(shown, name, list, "a list of texts") or []
    if not all(isinstance(value, str) for value in values):
        raise CannotRebuild(f"{name} is not a list of texts")
    return values


def _objects(shown: Fields, name: str) -> list[Fields]:
    values: list[Any] = _typed(shown, name, list, "a list of objects") or []
    if not all(isinstance(value, dict) for value in values):
        raise CannotRebuild(f"{name} is not a list of objects")
    return values


def _header_map(shown: Fields, name: str) -> dict[str, list[str]]:
    headers: dict[str, Any] = _typed(shown, name, dict, "a map of headers") or {}
    return {header: _texts(headers, header) for header in headers}


def _typed(shown: Fields, name: str, kind: type[Any], what: str) -> Any:
    value = shown.get(name)
    if value is not None and not isinstance(value, kind):
        raise CannotRebuild(f"{name} is not {what}")
    return value

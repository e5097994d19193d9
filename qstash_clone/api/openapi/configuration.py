"""The `Upstash-*` headers of a publish, as docs/reference/headers.md explains them."""

from typing import Final

from qstash_clone.api.openapi.description import NAME, Parameter, Schema

_TEXT: Final[Schema] = {"type": "string"}
_BOOLEAN: Final[Schema] = {"type": "string", "enum": ["true", "false", "1", "0"]}
_METHOD: Final[Schema] = {"type": "string", "enum": ["GET", "POST", "PUT", "PATCH", "DELETE"]}
_DURATION: Final[Schema] = {"type": "string", "pattern": "^([0-9]+|([0-9]+[smhd])+)$", "examples": ["90s", "1h30m"]}
_INTEGER: Final[Schema] = {"type": "integer", "minimum": 0}
_URL: Final[Schema] = {"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"}

_OF_CALLBACKS: Final[dict[str, tuple[Schema, str]]] = {
    "Method": (_METHOD, "Method of the call to the destination, `POST` by default."),
    "Retries": (_INTEGER, "Attempts after the first."),
    "Retry-Delay": (_TEXT, "Expression for the milliseconds before a retry."),
    "Timeout": (_DURATION, "Of one attempt, from connecting to the last byte of the answer; at least `1s`."),
    "Delay": (_DURATION, "How long to wait before the first attempt."),
    "Label": (_TEXT, "Labels, separated by commas."),
    "Flow-Control-Key": (_TEXT, "Limits go by this key; needs the value."),
    "Flow-Control-Value": (_TEXT, "`parallelism=`, `rate=` and `period=`, separated by commas; needs the key."),
}
"""What a message and its callbacks can both be given."""

_OF_MESSAGES: Final[dict[str, tuple[Schema, str]]] = _OF_CALLBACKS | {
    "Not-Before": (_INTEGER, "Unix time in seconds before which no attempt begins; wins over the delay."),
    "Header-Forward": (_BOOLEAN, "Send on the publish's own headers too."),
    "Callback": (_URL, "Where the result of every attempt is reported."),
    "Failure-Callback": (_URL, "Where it is reported that no attempt is left."),
    "Deduplication-Id": (_TEXT, "A later publish with the same id is a repeat."),
    "Content-Based-Deduplication": (_BOOLEAN, "A later publish that says the same is a repeat."),
    "Deduplication-Window": (_DURATION, "How long repeats are recognised; an extension of this service."),
    "Redact-Fields": (_TEXT, "What the API does not show: `body`, `header` and `header[Name]`, separated by commas."),
    "Cron": (_TEXT, "Create a schedule that publishes at these times."),
    "Schedule-Id": (NAME, "Of the schedule; made up without."),
    "Queue-Name": (NAME, "The queue of the schedule's messages."),
    "Schedule-Paused": (_BOOLEAN, "Create the schedule paused; an extension of this service."),
}
_NOT_OF_RETRIES: Final = (
    "Cron", "Schedule-Id", "Queue-Name", "Schedule-Paused",
    "Deduplication-Id", "Content-Based-Deduplication", "Deduplication-Window",
)  # fmt: skip

FORWARDING: Final = (
    "`Upstash-Forward-<Name>` is sent as `<Name>` with every attempt; `Upstash-Callback-Forward-<Name>` and "
    "`Upstash-Failure-Callback-Forward-<Name>` with the callbacks. Every `Upstash-*` header can also be given as a "
    "query parameter of the same name."
)
"""What a list of names cannot say."""


def _header(name: str, schema: Schema, text: str) -> Parameter:
    return Parameter(name=f"Upstash-{name}", place="header", text=text, schema=schema, shared_as=f"Upstash-{name}")


CONFIGURATION: Final = (
    *(_header(name, schema, text) for name, (schema, text) in _OF_MESSAGES.items()),
    *(
        _header(f"{kind}-{name}", schema, f"As `Upstash-{name}`, of the {kind.lower().replace('-', ' ')}.")
        for kind in ("Callback", "Failure-Callback")
        for name, (schema, _) in _OF_CALLBACKS.items()
    ),
)
"""Of a publish, and of an item of a batch."""


def _all_but(*names: str) -> tuple[Parameter, ...]:
    return tuple(one for one in CONFIGURATION if one.name.removeprefix("Upstash-") not in names)


OF_ENQUEUE: Final = _all_but("Queue-Name")
"""The queue is named in the path, which wins."""

OF_SCHEDULE: Final = _all_but("Not-Before")
"""A schedule has no single moment: it is refused there."""

OVERRIDES: Final = _all_but(*_NOT_OF_RETRIES)
"""Of the retry of a dead letter."""

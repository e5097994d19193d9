"""The filters of lists and bulk operations, as `domain.filter_parameters` accepts them."""

from typing import Final

from qstash_clone.api.openapi.description import Body, Parameter, Schema
from qstash_clone.domain.filter_parameters import FilterRules

_LIST: Final[Schema] = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}
_INTEGERS: Final[Schema] = {"type": "array", "items": {"type": "integer"}, "minItems": 1}
_TEXT: Final[Schema] = {"type": "string", "minLength": 1}
_DATE: Final[Schema] = {"type": "integer", "minimum": 0}

_ALIASES: Final = {"callerIp": "callerIP"}
_FILTERS: Final[dict[str, tuple[Schema, str]]] = {
    "messageId": (_LIST, "This message."),
    "messageIds": (_LIST, "Exactly these messages; other filters do not count then."),
    "dlqIds": (_LIST, "Exactly these dead letters; other filters do not count then."),
    "url": (_LIST, "The destination, compared as a whole with the text that was published."),
    "host": (_LIST, "The host of the destination, with or without its port."),
    "path": (_LIST, "The path of the destination, without the query."),
    "label": (_LIST, "A label."),
    "callerIp": (_LIST, "The publisher's address."),
    "callerIP": (_LIST, "The same as `callerIp`."),
    "topicName": (_LIST, "The URL group that was published to."),
    "queueName": (_LIST, "The queue."),
    "scheduleId": (_LIST, "The schedule that published it."),
    "flowControlKey": (_LIST, "The flow-control key."),
    "state": (_LIST, "Entries of this kind; `IN_PROGRESS` stands for `ACTIVE`, `RETRY` and `ERROR`."),
    "responseStatus": (_INTEGERS, "The status of the last attempt; 0 if it had no answer."),
    "fromDate": (_DATE, "Not before this time, in milliseconds of Unix time."),
    "toDate": (_DATE, "Not after this time, in milliseconds of Unix time."),
    "cursor": (_TEXT, "From the page before, with the same filters and order."),
    "count": ({"type": "integer", "minimum": 1}, "How many at most; more than the maximum means the maximum."),
    "order": ({"type": "string", "enum": ["earliestFirst", "latestFirst"]}, "By time."),
    "trimBody": ({"type": "integer"}, "Cut bodies to so many bytes; a negative number leaves them out."),
    "source": (_TEXT, "`workflow` gives an empty list."),
    "api": ({"type": "string"}, "Accepted without an effect, because older clients send it."),
}
_VALUE: Final[Schema] = {
    "anyOf": [
        {"type": ["string", "integer", "null"]},
        {"type": "array", "items": {"type": ["string", "integer"]}},
    ]
}

FILTERING: Final = (
    "Different parameters all have to match; several values of one, repeated or separated by commas, are alternatives. "
    "An unknown parameter and an empty value are refused: a mistyped filter must not select everything."
)


def filter_parameters(rules: FilterRules) -> tuple[Parameter, ...]:
    """The query parameters of an endpoint with these rules."""
    return tuple(
        Parameter(name=name, place="query", text=text, schema=schema, shared_as=f"filter-{name}")
        for name, (schema, text) in _FILTERS.items()
        if name in _names(rules)
    )


def filter_body(rules: FilterRules) -> Body:
    """The same as a JSON object, for the operations that take one."""
    return Body(
        text="The parameters of the query under the same names; the query wins. Without body and query: everything.",
        shape={
            "type": "object",
            "properties": {name: _VALUE for name in _FILTERS if name in _names(rules)},
            "additionalProperties": False,
        },
    )


def _names(rules: FilterRules) -> frozenset[str]:
    names = rules.names | rules.ignored
    names |= {alias for name, alias in _ALIASES.items() if name in names}
    unknown = names - _FILTERS.keys()
    if unknown:
        raise LookupError(f"filters without a description: {sorted(unknown)}")
    return names

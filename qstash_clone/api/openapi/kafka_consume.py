"""Upstash's Kafka REST API: what reads, and consumer groups."""

from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

from msgspec import Meta, structs

from qstash_clone.api.openapi.description import (
    Access,
    Answer,
    AnyOf,
    Body,
    Operation,
    Operations,
    Parameter,
    path_parameter,
    query_parameter,
)
from qstash_clone.api.openapi.kafka_produce import (
    JSON_UTF8,
    TAG,
    TOPIC,
    UPSTASH,
    KafkaHeader,
    Offset,
    PartitionNumber,
    Timestamp,
)
from qstash_clone.api.topics.upstash_places import DEFAULT_LOOKUP_TIMEOUT_MS, DEFAULT_READ_TIMEOUT_MS

_Timeout = Annotated[int, Meta(ge=0, description="Milliseconds to wait for records; default: 1000.")]


class TopicPartition(TypedDict):
    """A partition of a topic."""

    topic: str
    partition: PartitionNumber


class TopicPartitionOffset(TopicPartition):
    """An offset in a partition of a topic."""

    offset: Offset


class CommittedOffset(TopicPartition):
    """What a group has committed."""

    offset: Annotated[int, Meta(ge=-1, description="-1: nothing.")]


class FetchRequest(TypedDict):
    """From where to read: one triple, a list of them, or both."""

    topic: NotRequired[str | None]
    partition: NotRequired[Annotated[PartitionNumber | None, Meta(description="Default: 0.")]]
    offset: NotRequired[Annotated[Offset | None, Meta(description="Default: 0.")]]
    topicPartitionOffsets: NotRequired[list[TopicPartitionOffset] | None]
    timeout: NotRequired[_Timeout | None]


class ConsumeRequest(TypedDict):
    """One topic, several, or both; they replace those that the instance subscribed to before."""

    topic: NotRequired[str | None]
    topics: NotRequired[list[str] | None]
    timeout: NotRequired[_Timeout | None]


class FetchedMessage(TypedDict):
    """A record. Bytes that are not UTF-8 are replaced; what is missing looks like what is empty."""

    topic: str
    partition: PartitionNumber
    offset: Offset
    timestamp: Timestamp
    key: str
    value: str
    headers: list[KafkaHeader]


class Success(TypedDict):
    """It was done."""

    result: Literal["Success"]
    status: Literal[200]


class AssignedTopic(TypedDict):
    """The partitions of a topic that an instance owns."""

    topic: str
    partitions: list[PartitionNumber]


class ConsumerInstance(TypedDict):
    """A live instance."""

    name: str
    topics: list[AssignedTopic]


class ConsumerGroup(TypedDict):
    """A group that has live instances."""

    name: str
    instances: list[ConsumerInstance]


_GROUP: Final = (
    path_parameter("group", "The consumer group: 1 to 255 characters."),
    path_parameter("instance", "Its instance: 1 to 255 characters."),
)
_SETTINGS: Final = tuple(
    Parameter(name=name, place="header", text=f"{text} Counts for the call that creates the instance.", shared_as=name)
    for name, text in (
        ("Kafka-Enable-Auto-Commit", "`true` (default) or `false`."),
        ("Kafka-Auto-Commit-Interval", "Milliseconds between two commits; default: 5000."),
        ("Kafka-Auto-Offset-Reset", "Where to begin without a commit: `latest` (default), `earliest` or `none`."),
        ("Kafka-Session-Timeout-Ms", "Of silence, after which the instance is closed; default: 120000."),
    )
)


def _timeout(default_ms: int, text: str) -> Parameter:
    return query_parameter(
        "timeout", f"Milliseconds {text}; default: {default_ms}.", {"type": "string", "pattern": "^[0-9]+$"}
    )


_RECORDS: Final = Answer(
    text="Records, in ascending order of offsets within a partition; none after the time.",
    shape=list[FetchedMessage],
    media_type=JSON_UTF8,
)
_PLACES: Final = Body(
    text="One partition, or an array of them.", shape=AnyOf((TopicPartition, list[TopicPartition])), is_required=True
)
_GET_AND_POST: Final = "GET and POST are the same."
_ERRORS: Final = (400, 404, 413)


def _operation(id: str, summary: str, answer: Answer, **fields: Any) -> Operation:  # noqa: A002
    return Operation(
        id=id, tag=TAG, summary=summary, answers={200: answer}, access=Access.TOPICS, is_extension=True, family=UPSTASH,
        **fields,
    )  # fmt: skip


def _both(path: str, operation: Operation) -> dict[str, Operation]:
    return {f"POST {path}": operation, f"GET {path}": structs.replace(operation, id=f"{operation.id}WithGet")}


_SUCCESS: Final = Answer(text="Done.", shape=Success, media_type=JSON_UTF8)
_DELETE: Final = _operation(
    "deleteConsumer",
    "Close an instance of a group",
    _SUCCESS,
    text="POST and DELETE are the same. The commits of the group stay.",
    parameters=_GROUP,
    errors=(400, 404),
)

OPERATIONS: Final[Operations] = {
    **_both(
        "/fetch",
        _operation(
            "fetch",
            "Read records from offsets on, without a group",
            _RECORDS,
            text=_GET_AND_POST,
            body=Body(text="From where to read.", shape=FetchRequest, is_required=True),
            errors=_ERRORS,
        ),
    ),
    **_both(
        "/consume/{group}/{instance}/{topic}",
        _operation(
            "consumeTopic",
            "The next records of a topic for an instance of a group",
            _RECORDS,
            text=f"{_GET_AND_POST} There is no body. Creates the instance if there is none.",
            parameters=(*_GROUP, TOPIC, _timeout(DEFAULT_READ_TIMEOUT_MS, "to wait for records"), *_SETTINGS),
            errors=(400, 404, 429),
        ),
    ),
    **_both(
        "/consume/{group}/{instance}",
        _operation(
            "consume",
            "The next records of topics for an instance of a group",
            _RECORDS,
            text=f"{_GET_AND_POST} Creates the instance if there is none.",
            parameters=(*_GROUP, *_SETTINGS),
            body=Body(text="The topics.", shape=ConsumeRequest, is_required=True),
            errors=(*_ERRORS, 429),
        ),
    ),
    **_both(
        "/commit/{group}/{instance}",
        _operation(
            "commit",
            "Store how far a group has come",
            _SUCCESS,
            text=f"{_GET_AND_POST} Without offsets: everything that was handed out to the instance.",
            parameters=_GROUP,
            body=Body(
                text="One offset, an array of them, or nothing.",
                shape=AnyOf((TopicPartitionOffset, list[TopicPartitionOffset], None)),
            ),
            errors=_ERRORS,
        ),
    ),
    "POST /delete-consumer/{group}/{instance}": _DELETE,
    "DELETE /delete-consumer/{group}/{instance}": structs.replace(_DELETE, id="deleteConsumerWithDelete"),
    "GET /consumers": _operation(
        "listConsumers",
        "The live instances of all groups",
        Answer(text="By name, with the partitions that they own.", shape=list[ConsumerGroup], media_type=JSON_UTF8),
    ),
    **_both(
        "/committed/{group}/{instance}",
        _operation(
            "committed",
            "What a group has committed",
            Answer(text="One for each partition.", shape=list[CommittedOffset], media_type=JSON_UTF8),
            text=f"{_GET_AND_POST} The instance need not exist.",
            parameters=(*_GROUP, _timeout(DEFAULT_LOOKUP_TIMEOUT_MS, "to wait for the store, at least 1000")),
            body=_PLACES,
            errors=_ERRORS,
        ),
    ),
    **_both(
        "/offsets/{when}",
        _operation(
            "offsets",
            "First, next, or first later offsets of partitions",
            Answer(text="One for each partition.", shape=list[TopicPartitionOffset], media_type=JSON_UTF8),
            text=_GET_AND_POST,
            parameters=(
                path_parameter("when", "`earliest`, `latest`, or milliseconds of Unix time."),
                _timeout(DEFAULT_LOOKUP_TIMEOUT_MS, "to wait for the store, at least 1000"),
            ),
            body=_PLACES,
            errors=_ERRORS,
        ),
    ),
}

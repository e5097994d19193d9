"""Topics as a resource."""

from typing import Annotated, Final, Literal, NotRequired, TypedDict

from msgspec import Meta

from qstash_clone.api.openapi.description import Access, Answer, Body, Operation, Operations
from qstash_clone.api.openapi.kafka_produce import JSON_UTF8, TOPIC, UPSTASH, Offset, PartitionNumber
from qstash_clone.topics.records import MAX_PARTITIONS

_TAG: Final = "Topics"

PartitionCount = Annotated[int, Meta(ge=1, le=MAX_PARTITIONS, description="May grow, never shrink.")]
RetentionMs = Annotated[int, Meta(ge=-1, description="How long a record stays; -1: for ever.")]
RetentionBytes = Annotated[int, Meta(ge=-1, description="Of each partition; -1: no limit.")]
TimestampKind = Annotated[
    Literal["create", "append"], Meta(description="`append`: the time of a producer is replaced by that of the append.")
]


class TopicLogBounds(TypedDict):
    """What of a partition can be read: offsets from `start` up to and not including `end`."""

    partition: PartitionNumber
    start: Offset
    end: Offset


class DescribedTopic(TypedDict):
    """A topic."""

    name: str
    createdAt: int
    partitions: PartitionCount
    retentionMs: RetentionMs
    retentionBytes: RetentionBytes
    timestampType: TimestampKind
    logs: list[TopicLogBounds]


class WantedTopic(TypedDict):
    """What is left out stays as it is, or as a new topic has it."""

    partitions: NotRequired[PartitionCount | None]
    retentionMs: NotRequired[RetentionMs | None]
    retentionBytes: NotRequired[RetentionBytes | None]
    timestampType: NotRequired[TimestampKind | None]


class Success(TypedDict):
    """Done."""

    result: str
    status: int


_BODY: Final = Body(text="The configuration.", shape=WantedTopic)
_DESCRIBED: Final = Answer(text="The topic as it is now.", shape=DescribedTopic, media_type=JSON_UTF8)

OPERATIONS: Final[Operations] = {
    "GET /topics/{topic}": Operation(
        id="describeTopic",
        tag=_TAG,
        summary="Configuration of a topic, and what can be read of it",
        parameters=(TOPIC,),
        answers={200: _DESCRIBED},
        errors=(400, 404),
        access=Access.TOPICS,
        is_extension=True,
        family=UPSTASH,
    ),
    "POST /topics/{topic}": Operation(
        id="createTopic",
        tag=_TAG,
        summary="Create a topic",
        text="One that is there already with just this configuration is the answer as well.",
        parameters=(TOPIC,),
        body=_BODY,
        answers={200: _DESCRIBED},
        errors=(400, 413, 429),
        access=Access.TOPICS,
        is_extension=True,
        family=UPSTASH,
    ),
    "PATCH /topics/{topic}": Operation(
        id="changeTopic",
        tag=_TAG,
        summary="Grow a topic, or change how long records stay",
        parameters=(TOPIC,),
        body=_BODY,
        answers={200: _DESCRIBED},
        errors=(400, 404, 413),
        access=Access.TOPICS,
        is_extension=True,
        family=UPSTASH,
    ),
    "DELETE /topics/{topic}": Operation(
        id="deleteTopic",
        tag=_TAG,
        summary="Delete a topic with its records and commits",
        parameters=(TOPIC,),
        answers={200: Answer(text="It is gone.", shape=Success, media_type=JSON_UTF8)},
        errors=(400, 404),
        access=Access.TOPICS,
        is_extension=True,
        family=UPSTASH,
    ),
}

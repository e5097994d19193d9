"""Upstash's Kafka REST API: what writes, and the list of topics."""

from typing import Annotated, Final, NotRequired, TypedDict

from msgspec import Meta, structs

from qstash_clone.api.openapi.description import (
    Access,
    Answer,
    AnyOf,
    Body,
    Family,
    Operation,
    Operations,
    path_parameter,
    query_parameter,
)

JSON_UTF8: Final = "application/json; charset=utf-8"

Offset = Annotated[int, Meta(ge=0, description="Counted from 0 in each partition, without gaps.")]
Timestamp = Annotated[int, Meta(ge=0, description="Milliseconds of Unix time.")]
PartitionNumber = Annotated[int, Meta(ge=0)]


class KafkaError(TypedDict):
    """Every answer from status 400 on."""

    error: Annotated[str, Meta(min_length=1)]
    status: Annotated[int, Meta(description="The status of the answer.")]


class KafkaHeader(TypedDict):
    """A header of a record; names may repeat."""

    key: str
    value: str


class ProducedMessage(TypedDict):
    """A message for the topic of the path."""

    value: Annotated[str | float | bool, Meta(description="A number or a boolean is stored as it is written.")]
    partition: NotRequired[Annotated[PartitionNumber | None, Meta(description="Counts more than the key.")]]
    timestamp: NotRequired[Annotated[Timestamp | None, Meta(description="Default: when it is stored.")]]
    key: NotRequired[Annotated[str | None, Meta(description="Messages with the same one share a partition.")]]
    headers: NotRequired[list[KafkaHeader] | None]


class AddressedMessage(ProducedMessage):
    """A message that names its topic."""

    topic: str


class RecordMetadata(TypedDict):
    """Where a message is stored."""

    topic: str
    partition: PartitionNumber
    offset: Offset
    timestamp: Timestamp


UPSTASH: Final = Family(
    name="Kafka", error=KafkaError, media_type=JSON_UTF8, security=("basic", "bearer"), has_head=False
)
_WEBHOOK: Final = structs.replace(UPSTASH, security=("basic", "bearer", "pass"))
TOPIC: Final = path_parameter("topic", "1 to 249 letters, digits, `.`, `_` and `-`.")
TAG: Final = "Kafka (Upstash)"
_TEXT: Final = "GET and POST are the same. All messages are checked before the first is stored."
_STORED: Final = Answer(
    text="Stored durably: one element for each message, in the same order.",
    shape=list[RecordMetadata],
    media_type=JSON_UTF8,
)
_ERRORS: Final = (400, 404, 413)


def _both(path: str, name: str, operation: Operation) -> dict[str, Operation]:
    """The operation by `POST`, and by `GET`, which takes the body as well."""
    return {
        f"POST {path}": operation,
        f"GET {path}": structs.replace(operation, id=f"{name}WithGet"),
    }


OPERATIONS: Final[Operations] = {
    **_both(
        "/produce/{topic}/{message}",
        "producePath",
        Operation(
            id="producePath",
            tag=TAG,
            summary="Store the message that the path holds",
            text="GET and POST are the same; there is no body.",
            parameters=(
                TOPIC,
                path_parameter("message", "The value, percent-encoded or not, slashes included.", spans_segments=True),
                query_parameter("key", "The key of the message; may be empty.", {"type": "string"}),
            ),
            answers={200: Answer(text="Stored durably.", shape=RecordMetadata, media_type=JSON_UTF8)},
            errors=_ERRORS,
            access=Access.TOPICS,
            is_extension=True,
            family=UPSTASH,
        ),
    ),
    **_both(
        "/produce/{topic}",
        "produceToTopic",
        Operation(
            id="produceToTopic",
            tag=TAG,
            summary="Store one message or several in a topic",
            text=_TEXT,
            parameters=(TOPIC,),
            body=Body(
                text="One message, or an array of them.",
                shape=AnyOf((ProducedMessage, list[ProducedMessage])),
                is_required=True,
            ),
            answers={200: _STORED},
            errors=_ERRORS,
            access=Access.TOPICS,
            is_extension=True,
            family=UPSTASH,
        ),
    ),
    **_both(
        "/produce",
        "produce",
        Operation(
            id="produce",
            tag=TAG,
            summary="Store one message or several, each in its topic",
            text=_TEXT,
            body=Body(
                text="One message, or an array of them.",
                shape=AnyOf((AddressedMessage, list[AddressedMessage])),
                is_required=True,
            ),
            answers={200: _STORED},
            errors=_ERRORS,
            access=Access.TOPICS,
            is_extension=True,
            family=UPSTASH,
        ),
    ),
    **_both(
        "/webhook",
        "webhook",
        Operation(
            id="webhook",
            tag=TAG,
            summary="Store the body as it is, with the headers that are not standard ones",
            text="GET and POST are the same.",
            parameters=(
                query_parameter("topic", "The topic; required.", {"type": "string"}),
                query_parameter("user", "Any, for senders that cannot set a header.", {"type": "string"}),
                query_parameter("pass", "The token, for senders that cannot set a header.", {"type": "string"}),
            ),
            body=Body(text="Any bytes.", shape={}, media_type="*/*"),
            answers={200: _STORED},
            errors=_ERRORS,
            access=Access.TOPICS,
            is_extension=True,
            family=_WEBHOOK,
        ),
    ),
    "GET /topics": Operation(
        id="listTopics",
        tag=TAG,
        summary="The topics that the credential is for",
        answers={
            200: Answer(
                text="The number of partitions of each topic.",
                shape=dict[str, Annotated[int, Meta(ge=1)]],
                media_type=JSON_UTF8,
            )
        },
        access=Access.TOPICS,
        is_extension=True,
        family=UPSTASH,
    ),
}

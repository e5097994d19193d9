"""Messages: look at one, list what is pending, cancel."""

from typing import Annotated, Final, NotRequired, TypedDict

from msgspec import Meta

from qstash_clone.api.explain import Reason
from qstash_clone.api.openapi.description import Answer, Ms, Operation, Operations, path_parameter
from qstash_clone.api.openapi.filters import FILTERING, filter_body, filter_parameters
from qstash_clone.api.openapi.shapes import Message, Page
from qstash_clone.api.routes.messages import PENDING
from qstash_clone.domain.filter_parameters import CANCEL


class MessagePage(Page):
    """Messages that have not ended."""

    messages: list[Message]


class Cancelled(TypedDict):
    """How many messages were newly cancelled."""

    cancelled: Annotated[int, Meta(ge=0)]


class Lane(TypedDict):
    """Where a message waits or has its place."""

    name: str
    waiting: int
    admitted: int
    isParked: bool


class FailedAttempt(TypedDict):
    """The newest failed attempt."""

    status: int
    error: str
    duration: Annotated[int, Meta(description="Milliseconds.")]


class Explanation(TypedDict):
    """Why a message has not been delivered yet, or what became of it."""

    messageId: str
    state: Annotated[str, Meta(description="`DELAYED`, `WAITING`, `ACTIVE`, `DELIVERED`, `FAILED` or `CANCELED`.")]
    reason: Reason
    explanation: Annotated[str, Meta(description="One sentence for people; its words may change.")]
    now: Ms
    createdAt: Ms
    notBefore: Ms
    dueAt: NotRequired[Ms]
    endedAt: NotRequired[Ms]
    activeSince: NotRequired[Ms]
    attempts: int
    maxRetries: int
    cancelRequested: bool
    lane: Lane
    isAdmitted: bool
    workers: int
    capacity: int
    freePlaces: int
    lastAttempt: NotRequired[FailedAttempt]


_ID: Final = path_parameter("messageId", "As the publish answered it.")

OPERATIONS: Final[Operations] = {
    "GET /v2/messages": Operation(
        id="listMessages",
        tag="Messages",
        summary="The messages that have not ended",
        text=FILTERING,
        parameters=filter_parameters(PENDING),
        answers={200: Answer(text="One page.", shape=MessagePage)},
        errors=(400,),
        is_extension=True,
    ),
    "DELETE /v2/messages": Operation(
        id="cancelMessages",
        tag="Messages",
        summary="Cancel many messages",
        text=FILTERING,
        parameters=filter_parameters(CANCEL),
        body=filter_body(CANCEL),
        answers={200: Answer(text="Done; repeat it until it answers 0 to be sure of all.", shape=Cancelled)},
        errors=(400, 413),
    ),
    "GET /v2/messages/{messageId}": Operation(
        id="getMessage",
        tag="Messages",
        summary="One message, until a grace period after it ended",
        parameters=(_ID,),
        answers={200: Answer(text="The message.", shape=Message)},
        errors=(404,),
    ),
    "DELETE /v2/messages/{messageId}": Operation(
        id="cancelMessage",
        tag="Messages",
        summary="Cancel a message that has not ended",
        parameters=(_ID,),
        answers={200: Answer(text="1; or 0 if it is being delivered and was to be cancelled before.", shape=Cancelled)},
        errors=(404,),
    ),
    "GET /v2/messages/{messageId}/explain": Operation(
        id="explainMessage",
        tag="Messages",
        summary="Why it has not been delivered yet",
        parameters=(_ID,),
        answers={200: Answer(text="In fields, and in one sentence.", shape=Explanation)},
        errors=(404,),
        is_extension=True,
    ),
}

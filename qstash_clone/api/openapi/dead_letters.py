"""The dead letter queue."""

from typing import Annotated, Final, NotRequired, TypedDict

from msgspec import Meta

from qstash_clone.api.openapi.configuration import FORWARDING, OVERRIDES
from qstash_clone.api.openapi.description import DONE, Answer, HeaderMap, Operation, Operations, path_parameter
from qstash_clone.api.openapi.filters import FILTERING, filter_body, filter_parameters
from qstash_clone.api.openapi.shapes import Message, Page
from qstash_clone.domain.filter_parameters import DEAD_LETTERS, DEAD_LETTERS_BULK


class DeadLetter(Message):
    """A message whose last attempt failed, and what came back."""

    dlqId: str
    responseStatus: Annotated[int, Meta(description="Of the last attempt; 0 if there was no HTTP answer.")]
    responseHeader: NotRequired[HeaderMap]
    responseBody: NotRequired[Annotated[str, Meta(description="If it is valid UTF-8; left out when empty.")]]
    responseBodyBase64: NotRequired[Annotated[str, Meta(description="If it is not.")]]


class DeadLetterPage(Page):
    """Dead letters."""

    messages: list[DeadLetter]


class Deleted(Page):
    """How many were deleted."""

    deleted: Annotated[int, Meta(ge=0)]


class Retried(TypedDict):
    """The message that a dead letter became."""

    messageId: str
    url: str


class RetriedPage(Page):
    """The messages that dead letters became."""

    responses: list[Retried]


_ID: Final = path_parameter("dlqId", "As the list shows it.")

OPERATIONS: Final[Operations] = {
    "GET /v2/dlq": Operation(
        id="listDeadLetters",
        tag="Dead letters",
        summary="Dead letters",
        text=FILTERING,
        parameters=filter_parameters(DEAD_LETTERS),
        answers={200: Answer(text="One page.", shape=DeadLetterPage)},
        errors=(400,),
    ),
    "DELETE /v2/dlq": Operation(
        id="deleteDeadLetters",
        tag="Dead letters",
        summary="Delete many dead letters",
        text=FILTERING,
        parameters=filter_parameters(DEAD_LETTERS_BULK),
        body=filter_body(DEAD_LETTERS_BULK),
        answers={200: Answer(text="Repeat it with the cursor until there is none.", shape=Deleted)},
        errors=(400, 413),
    ),
    "GET /v2/dlq/{dlqId}": Operation(
        id="getDeadLetter",
        tag="Dead letters",
        summary="One dead letter",
        parameters=(_ID,),
        answers={200: Answer(text="The dead letter.", shape=DeadLetter)},
        errors=(404,),
    ),
    "DELETE /v2/dlq/{dlqId}": Operation(
        id="deleteDeadLetter",
        tag="Dead letters",
        summary="Delete a dead letter",
        parameters=(_ID,),
        answers={200: DONE},
        errors=(404,),
    ),
    "POST /v2/dlq/retry": Operation(
        id="retryDeadLetters",
        tag="Dead letters",
        summary="Publish many dead letters again",
        text=f"{FILTERING} {FORWARDING}",
        parameters=(*filter_parameters(DEAD_LETTERS_BULK), *OVERRIDES),
        body=filter_body(DEAD_LETTERS_BULK),
        answers={201: Answer(text="Repeat it with the cursor until there is none.", shape=RetriedPage)},
        errors=(400, 404, 412, 413),
    ),
    "POST /v2/dlq/retry/{dlqId}": Operation(
        id="retryDeadLetter",
        tag="Dead letters",
        summary="Publish a dead letter again as a new message",
        text=f"The headers replace that aspect of the message. {FORWARDING}",
        parameters=(_ID, *OVERRIDES),
        answers={201: Answer(text="The new message.", shape=Retried)},
        errors=(400, 404, 412),
    ),
}

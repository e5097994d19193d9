"""The log of what happened to messages, under its two paths."""

from typing import Annotated, Final, NotRequired

from msgspec import Meta

from qstash_clone.api.openapi.description import Answer, HeaderMap, Ms, Operation, Operations
from qstash_clone.api.openapi.filters import FILTERING, filter_parameters
from qstash_clone.api.openapi.shapes import Labelled, Page
from qstash_clone.domain.filter_parameters import EVENTS, LOGS


class LogEntry(Labelled):
    """One step of a message's life; bodies are in base64 here."""

    time: Ms
    messageId: str
    state: Annotated[
        str,
        Meta(pattern="^(CREATED|ACTIVE|RETRY|ERROR|DELIVERED|FAILED|CANCEL_REQUESTED|CANCELED)$"),
    ]
    url: str
    method: str
    header: HeaderMap
    body: NotRequired[Annotated[str, Meta(description="In base64; left out when empty.")]]
    maxRetries: int
    timeout: Annotated[int, Meta(description="Milliseconds.")]
    error: NotRequired[Annotated[str, Meta(description="With `ERROR` and `FAILED`: what went wrong.")]]
    responseStatus: NotRequired[Annotated[int, Meta(description="With `ERROR`; 0 if there was no answer.")]]
    responseHeader: NotRequired[HeaderMap]
    responseHeaders: NotRequired[HeaderMap]
    responseBody: NotRequired[Annotated[str, Meta(description="In base64.")]]
    nextDeliveryTime: NotRequired[Ms]
    callbackHeaders: NotRequired[HeaderMap]
    failureCallbackHeaders: NotRequired[HeaderMap]
    retryDelayExpr: NotRequired[Annotated[str, Meta(description="The same as `retryDelayExpression`.")]]
    topicName: NotRequired[str]
    endpointName: NotRequired[str]
    scheduleId: NotRequired[str]
    api: NotRequired[str]


class EventPage(Page):
    """Entries of the log."""

    events: list[LogEntry]


class LogPage(Page):
    """Entries of the log."""

    logs: list[LogEntry]


OPERATIONS: Final[Operations] = {
    "GET /v2/events": Operation(
        id="listEvents",
        tag="Log",
        summary="What happened to messages, as the SDKs ask for it",
        text=FILTERING,
        parameters=filter_parameters(EVENTS),
        answers={200: Answer(text="One page, of 1000 entries at most.", shape=EventPage)},
        errors=(400,),
    ),
    "GET /v2/logs": Operation(
        id="listLogs",
        tag="Log",
        summary="The same as `/v2/events`",
        text=FILTERING,
        parameters=filter_parameters(LOGS),
        answers={200: Answer(text="One page, of 100 entries at most.", shape=LogPage)},
        errors=(400,),
    ),
}

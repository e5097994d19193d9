"""Publish, enqueue and batch."""

from typing import Annotated, Any, Final, NotRequired, TypedDict

from msgspec import Meta

from qstash_clone.api.openapi.configuration import CONFIGURATION, FORWARDING, OF_ENQUEUE
from qstash_clone.api.openapi.description import (
    Access,
    Answer,
    AnyOf,
    Body,
    Operation,
    Operations,
    Parameter,
    path_parameter,
)
from qstash_clone.api.openapi.shapes import EndpointResult, Error, PublishResult, ScheduleResult


class BatchItem(TypedDict):
    """One publish of a batch; null is as good as absent."""

    destination: str | None
    headers: NotRequired[
        Annotated[
            dict[str, str | list[str]] | None,
            Meta(description="Headers of a publish, in any case; a list stands for several lines."),
        ]
    ]
    body: NotRequired[Annotated[Any, Meta(description="A string, or any JSON value, which is delivered as JSON.")]]
    queue: NotRequired[Annotated[str | None, Meta(description="The queue to enqueue it in.")]]
    callback: NotRequired[Annotated[str | None, Meta(description="Another way to write `Upstash-Callback`.")]]


DESTINATION: Final = path_parameter(
    "destination",
    "A URL as it is, slashes and query included, or percent-encoded; the name of a URL group; or `api/llm`. OpenAPI "
    "has no parameter that spans segments, so generated clients percent-encode it, which is understood as well.",
    spans_segments=True,
)
PAYLOAD: Final = Body(
    text="Any bytes of any content type, delivered as they are.",
    shape={},
    media_type="*/*",
)
RESULT: Final = AnyOf((PublishResult, list[EndpointResult], ScheduleResult))
_ANSWERS: Final = {
    200: Answer(
        text="Stored durably. An array for a URL group, in the order of its endpoints; a schedule with `Upstash-Cron`.",
        shape=RESULT,
    ),
    202: Answer(text="It repeats an earlier publish, and nothing was stored.", shape=RESULT),
}


def _publish(
    name: str, summary: str, *parameters: Parameter, headers: tuple[Parameter, ...] = CONFIGURATION
) -> Operation:
    return Operation(
        id=name,
        tag="Publish",
        summary=summary,
        text=FORWARDING,
        parameters=(*parameters, DESTINATION, *headers),
        body=PAYLOAD,
        answers=_ANSWERS,
        errors=(400, 404, 412, 413),
        access=Access.PUBLISHING,
    )


OPERATIONS: Final[Operations] = {
    "POST /v2/publish/{destination}": _publish("publish", "Store a message that is delivered to a destination"),
    "POST /v2/enqueue/{queue}/{destination}": _publish(
        "enqueue",
        "Publish as a member of a queue, which is made if there is none",
        path_parameter("queue", "1 to 256 letters, digits, `.`, `_` and `-`."),
        headers=OF_ENQUEUE,
    ),
    "POST /v2/batch": Operation(
        id="batch",
        tag="Publish",
        summary="Publish many messages in one request",
        text="`Upstash-*` headers of the request itself do not hold for its items.",
        body=Body(text="The items, stored in order.", shape=list[BatchItem], is_required=True),
        answers={
            200: Answer(
                text="One element for each item, in the same order; an error for an item that was refused.",
                shape={"type": "array", "items": AnyOf((*RESULT.shapes, Error))},
            )
        },
        errors=(400, 413),
        access=Access.PUBLISHING,
    ),
}

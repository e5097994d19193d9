"""Schedules."""

from typing import Annotated, Final, Literal, NotRequired

from msgspec import Meta, structs

from qstash_clone.api.openapi.configuration import FORWARDING, OF_SCHEDULE
from qstash_clone.api.openapi.description import (
    DONE,
    NAME,
    Answer,
    HeaderMap,
    Ms,
    Operation,
    Operations,
    path_parameter,
)
from qstash_clone.api.openapi.publishing import DESTINATION, PAYLOAD
from qstash_clone.api.openapi.shapes import Labelled, ScheduleResult


class Schedule(Labelled):
    """A recurring publish."""

    scheduleId: str
    cron: str
    destination: Annotated[str, Meta(description="As published: a URL or the name of a URL group.")]
    method: str
    header: HeaderMap
    body: NotRequired[Annotated[str, Meta(description="If it is valid UTF-8; left out when empty.")]]
    bodyBase64: NotRequired[Annotated[str, Meta(description="If it is not.")]]
    createdAt: Ms
    isPaused: bool
    retries: Annotated[int, Meta(ge=0)]
    delay: NotRequired[Annotated[int, Meta(description="Seconds.")]]
    timeout: NotRequired[Annotated[int, Meta(description="Seconds.")]]
    callbackHeader: NotRequired[HeaderMap]
    failureCallbackHeader: NotRequired[HeaderMap]
    nextScheduleTime: NotRequired[Annotated[Ms, Meta(description="Left out while it is paused.")]]
    lastScheduleTime: NotRequired[Ms]
    lastScheduleStates: NotRequired[
        Annotated[
            dict[str, Literal["IN_PROGRESS", "SUCCESS", "FAIL"]],
            Meta(description="Of the messages of the last firing."),
        ]
    ]
    error: NotRequired[Annotated[str, Meta(description="Why the last firing published nothing.")]]


_ID: Final = path_parameter("scheduleId", "As the creation answered it.")
_ID_HERE: Final = structs.replace(_ID, name="scheduleIdOrDestination", text="The id of the schedule.")


def _change(method: str, word: str, summary: str) -> Operation:
    # A POST whose id has another form is a creation, of which this would be the destination.
    of_change = structs.replace(_ID, schema=NAME) if method == "POST" else _ID
    return Operation(
        id=f"{word}Schedule" if method == "PATCH" else f"{word}ScheduleBy{method.title()}",
        tag="Schedules",
        summary=summary,
        parameters=(of_change,),
        answers={200: DONE},
        errors=(404,),
    )


OPERATIONS: Final[Operations] = {
    "POST /v2/schedules/{scheduleIdOrDestination}": Operation(
        id="createSchedule",
        tag="Schedules",
        summary="Create a schedule, or replace the one of the same id",
        text=f"`Upstash-Cron` is required. {FORWARDING}",
        parameters=(structs.replace(DESTINATION, name="scheduleIdOrDestination"), *OF_SCHEDULE),
        body=PAYLOAD,
        answers={
            200: Answer(text="Stored.", shape=ScheduleResult),
            202: Answer(text="It repeats an earlier request, and nothing was stored.", shape=ScheduleResult),
        },
        errors=(400, 404, 412, 413),
    ),
    "GET /v2/schedules": Operation(
        id="listSchedules",
        tag="Schedules",
        summary="All schedules, in the order of their creation",
        answers={200: Answer(text="All of them.", shape=list[Schedule])},
    ),
    "GET /v2/schedules/{scheduleIdOrDestination}": Operation(
        id="getSchedule",
        tag="Schedules",
        summary="One schedule",
        parameters=(_ID_HERE,),
        answers={200: Answer(text="The schedule.", shape=Schedule)},
        errors=(404,),
    ),
    "DELETE /v2/schedules/{scheduleIdOrDestination}": Operation(
        id="deleteSchedule",
        tag="Schedules",
        summary="End all future firings; the schedule need not exist",
        parameters=(_ID_HERE,),
        answers={200: DONE},
    ),
    **{
        f"{method} /v2/schedules/{{scheduleId}}/{word}": _change(method, word, summary)
        for word, summary in (
            ("pause", "Ignore instants until it is resumed"),
            ("resume", "Go on with the next future instant"),
        )
        for method in ("PATCH", "POST", "PUT")
    },
}

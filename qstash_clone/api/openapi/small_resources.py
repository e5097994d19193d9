"""Signing keys, deduplication records, previews, probes, the clock of `dev`, and this description itself."""

from typing import Annotated, Final, NotRequired, TypedDict

from msgspec import Meta

from qstash_clone.api.openapi.description import (
    DONE,
    Access,
    Answer,
    AnyOf,
    Body,
    Ms,
    Operation,
    Operations,
    path_parameter,
)
from qstash_clone.api.routes.preview import MAX_COUNT, MAX_FIRINGS
from qstash_clone.instruments import CONTENT_TYPE


class SigningKeys(TypedDict):
    """The key that deliveries are signed with, and the one after it."""

    current: str
    next: str


class DeduplicationRecord(TypedDict):
    """What repeats of an id are answered with, and until when."""

    deduplicationId: str
    messageId: NotRequired[str]
    scheduleId: NotRequired[str]
    expiresAt: Ms


class RetriesQuestion(TypedDict):
    """Retries to be previewed."""

    expression: NotRequired[Annotated[str | None, Meta(description="null: the default backoff.")]]
    count: NotRequired[Annotated[int, Meta(ge=1, le=MAX_COUNT)] | None]


class PlannedRetry(TypedDict):
    """When one retry would be made."""

    retry: int
    delay: Annotated[int, Meta(description="Milliseconds.")]
    time: Ms
    isDefault: Annotated[bool, Meta(description="The expression gave no number, so the default backoff counts.")]


class RetriesPreview(TypedDict):
    """When retries would be made."""

    expression: NotRequired[str]
    now: Ms
    retries: list[PlannedRetry]


class CronQuestion(TypedDict):
    """Firings to be previewed."""

    cron: str
    count: NotRequired[Annotated[int, Meta(ge=1, le=MAX_FIRINGS)] | None]
    after: NotRequired[Annotated[int, Meta(ge=0, description="Milliseconds of Unix time; now if absent.")] | None]


class Firing(TypedDict):
    """One instant of a schedule."""

    time: Ms
    local: Annotated[str, Meta(description="The same on the clock of the expression's zone.")]


class CronPreview(TypedDict):
    """When a schedule would fire."""

    cron: str
    zone: str
    now: Ms
    firings: list[Firing]


class Alive(TypedDict):
    """The process answers."""

    status: str


class Ready(TypedDict):
    """A message can be stored durably now."""

    status: str
    durability: str
    workers: NotRequired[int]
    capacity: NotRequired[int]


class NotReady(TypedDict):
    """No message can be stored now."""

    error: str
    durability: str


class Clock(TypedDict):
    """The time that delays, retries, schedules and retention go by."""

    now: Ms
    offset: Annotated[int, Meta(description="Milliseconds ahead of Redis's own clock.")]
    frozen: bool


class Advance(TypedDict):
    """Time passes."""

    advance: Annotated[str | int, Meta(description="A duration, or milliseconds.")]


class MoveTo(TypedDict):
    """Time passes until a moment."""

    to: Ms


class Freeze(TypedDict):
    """The clock stands still, or goes on."""

    freeze: bool


_DEDUPLICATION_ID: Final = path_parameter("deduplicationId", "As it was published.", spans_segments=True)


def _rotate(name: str) -> Operation:
    return Operation(
        id=name,
        tag="Signing keys",
        summary="Make the next key the current one and draw a new next key",
        answers={200: Answer(text="The new pair.", shape=SigningKeys)},
    )


KEYS: Final[Operations] = {
    "GET /v2/keys": Operation(
        id="getSigningKeys",
        tag="Signing keys",
        summary="The signing keys",
        answers={200: Answer(text="The pair.", shape=SigningKeys)},
    ),
    "POST /v2/keys/rotate": _rotate("rotateSigningKeys"),
    "POST /v2/rotate": _rotate("rotateSigningKeysAsGoDoes"),
}

DEDUPLICATION: Final[Operations] = {
    "GET /v2/deduplication/{deduplicationId}": Operation(
        id="getDeduplication",
        tag="Deduplication",
        summary="What repeats of an id are answered with",
        parameters=(_DEDUPLICATION_ID,),
        answers={200: Answer(text="The record.", shape=DeduplicationRecord)},
        errors=(404,),
        is_extension=True,
    ),
    "DELETE /v2/deduplication/{deduplicationId}": Operation(
        id="clearDeduplication",
        tag="Deduplication",
        summary="Let the next publish with this id be stored",
        parameters=(_DEDUPLICATION_ID,),
        answers={200: DONE},
        errors=(404,),
        is_extension=True,
    ),
}

PREVIEWS: Final[Operations] = {
    "POST /v2/preview/retries": Operation(
        id="previewRetries",
        tag="Previews",
        summary="When retries would be made",
        body=Body(text="What to show.", shape=RetriesQuestion),
        answers={200: Answer(text="If the first attempt failed now and all others at once.", shape=RetriesPreview)},
        errors=(400, 413),
        is_extension=True,
    ),
    "POST /v2/preview/cron": Operation(
        id="previewCron",
        tag="Previews",
        summary="When a schedule would fire",
        body=Body(text="What to show.", shape=CronQuestion, is_required=True),
        answers={200: Answer(text="The next firings.", shape=CronPreview)},
        errors=(400, 413),
        is_extension=True,
    ),
}

PROBES: Final[Operations] = {
    "GET /livez": Operation(
        id="livez",
        tag="Probes",
        summary="Whether this process answers",
        answers={200: Answer(text="It does.", shape=Alive)},
        access=Access.NOBODY_ASKS,
        is_extension=True,
    ),
    "GET /readyz": Operation(
        id="readyz",
        tag="Probes",
        summary="Whether a message can be stored durably now",
        answers={200: Answer(text="It can.", shape=Ready), 503: Answer(text="It cannot.", shape=NotReady)},
        access=Access.NOBODY_ASKS,
        is_extension=True,
    ),
    "GET /metrics": Operation(
        id="metrics",
        tag="Probes",
        summary="Counters and gauges for Prometheus",
        answers={200: Answer(text="Prometheus's text format.", shape={"type": "string"}, media_type=CONTENT_TYPE)},
        access=Access.NOBODY_ASKS,
        is_extension=True,
    ),
    "GET /openapi.json": Operation(
        id="openapi",
        tag="Probes",
        summary="This description",
        answers={200: Answer(text="A document of OpenAPI 3.1.", shape={"type": "object", "required": ["openapi"]})},
        access=Access.NOBODY_ASKS,
        is_extension=True,
    ),
}

DEV: Final[Operations] = {
    "GET /dev/clock": Operation(
        id="getClock",
        tag="Clock",
        summary="The clock of messages",
        answers={200: Answer(text="Now.", shape=Clock)},
        access=Access.DEV,
        is_extension=True,
    ),
    "POST /dev/clock": Operation(
        id="moveClock",
        tag="Clock",
        summary="Let time pass, or stand still",
        body=Body(text="Exactly one move.", shape=AnyOf((Advance, MoveTo, Freeze)), is_required=True),
        answers={200: Answer(text="Where it stands now.", shape=Clock)},
        errors=(400, 413),
        access=Access.DEV,
        is_extension=True,
    ),
}

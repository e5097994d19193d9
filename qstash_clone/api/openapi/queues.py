"""Queues."""

from typing import Annotated, Final, NotRequired, TypedDict

from msgspec import Meta

from qstash_clone.api.openapi.description import DONE, Answer, Body, Ms, Operation, Operations, path_parameter


class Queue(TypedDict):
    """A line whose members are delivered one after the other."""

    name: str
    parallelism: Annotated[int, Meta(ge=1)]
    createdAt: Ms
    updatedAt: Ms
    lag: Annotated[int, Meta(ge=0, description="Messages that have not ended, delayed ones included.")]
    paused: bool


class QueueChange(TypedDict):
    """A queue to be created or changed; null is as good as absent."""

    queueName: Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,256}$")]
    parallelism: NotRequired[int | None]
    paused: NotRequired[bool | None]


_NAME: Final = path_parameter("name", "1 to 256 letters, digits, `.`, `_` and `-`.")

OPERATIONS: Final[Operations] = {
    "GET /v2/queues": Operation(
        id="listQueues",
        tag="Queues",
        summary="All queues, in the order of their creation",
        answers={200: Answer(text="All of them.", shape=list[Queue])},
    ),
    "POST /v2/queues": Operation(
        id="putQueue",
        tag="Queues",
        summary="Create a queue, or change what the body names of one",
        body=Body(text="The queue.", shape=QueueChange, is_required=True),
        answers={200: DONE},
        errors=(400, 412, 413),
    ),
    "GET /v2/queues/{name}": Operation(
        id="getQueue",
        tag="Queues",
        summary="One queue",
        parameters=(_NAME,),
        answers={200: Answer(text="The queue.", shape=Queue)},
        errors=(400, 404),
    ),
    "DELETE /v2/queues/{name}": Operation(
        id="deleteQueue",
        tag="Queues",
        summary="Forget a queue, which need not exist, and cancel what waits there",
        parameters=(_NAME,),
        answers={200: DONE},
        errors=(400,),
    ),
    "POST /v2/queues/{name}/pause": Operation(
        id="pauseQueue",
        tag="Queues",
        summary="Let none of its messages begin another attempt",
        parameters=(_NAME,),
        answers={200: DONE},
        errors=(400, 404),
    ),
    "POST /v2/queues/{name}/resume": Operation(
        id="resumeQueue",
        tag="Queues",
        summary="Go on where it stopped",
        parameters=(_NAME,),
        answers={200: DONE},
        errors=(400, 404),
    ),
}

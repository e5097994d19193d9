"""Flow-control keys, and the attempts of all together."""

from typing import Annotated, Final, TypedDict

from msgspec import Meta

from qstash_clone.api.openapi.description import (
    DONE,
    Answer,
    Operation,
    Operations,
    Parameter,
    path_parameter,
    query_parameter,
)
from qstash_clone.domain.flow_control import MAX_FLOW_LIMIT, MAX_FLOW_PERIOD_S


class FlowControlKey(TypedDict):
    """The limits of a key, 0 for none, and what they hold at the moment."""

    flowControlKey: str
    waitListSize: Annotated[int, Meta(ge=0)]
    parallelismMax: Annotated[int, Meta(ge=0)]
    parallelismCount: Annotated[int, Meta(ge=0)]
    rateMax: Annotated[int, Meta(ge=0)]
    rateCount: Annotated[int, Meta(ge=0)]
    ratePeriod: Annotated[int, Meta(ge=0, description="Seconds.")]
    ratePeriodStart: Annotated[int, Meta(ge=0, description="Seconds of Unix time.")]
    isPaused: bool
    isPinnedParallelism: bool
    isPinnedRate: bool


class GlobalParallelism(TypedDict):
    """Attempts under way, and how many there may be."""

    parallelismMax: Annotated[int, Meta(ge=0)]
    parallelismCount: Annotated[int, Meta(ge=0)]


_KEY: Final = path_parameter("key", "1 to 256 visible ASCII characters without `/ ? # %` and the comma.")
_BOOLEAN: Final = {"type": "string", "enum": ["true", "false", "1", "0"]}


def _change(word: str, summary: str, *parameters: Parameter) -> Operation:
    return Operation(
        id=f"{word}FlowControl" if word != "resetRate" else "resetFlowControlRate",
        tag="Flow control",
        summary=summary,
        parameters=(_KEY, *parameters),
        answers={200: DONE},
        errors=(400,),
    )


def _limit(name: str, text: str, maximum: int) -> Parameter:
    return query_parameter(name, text, {"type": "integer", "minimum": 1, "maximum": maximum})


OPERATIONS: Final[Operations] = {
    "GET /v2/flowControl": Operation(
        id="listFlowControl",
        tag="Flow control",
        summary="Flow-control keys in their alphabetical order",
        parameters=(query_parameter("search", "Only keys that contain this text.", {"type": "string"}),),
        answers={200: Answer(text="All of them.", shape=list[FlowControlKey])},
        errors=(400,),
    ),
    "GET /v2/flowControl/{key}": Operation(
        id="getFlowControl",
        tag="Flow control",
        summary="One flow-control key",
        parameters=(_KEY,),
        answers={200: Answer(text="The key.", shape=FlowControlKey)},
        errors=(404,),
    ),
    "POST /v2/flowControl/{key}/pause": _change("pause", "Let no attempt with this key begin; a new key is made"),
    "POST /v2/flowControl/{key}/resume": _change("resume", "Go on under the key's limits"),
    "POST /v2/flowControl/{key}/pin": _change(
        "pin",
        "Fix limits, so that messages do not change them any more; a new key is made",
        _limit("parallelism", "Attempts at once.", MAX_FLOW_LIMIT),
        _limit("rate", "Attempts in one period.", MAX_FLOW_LIMIT),
        _limit("period", "Seconds; needs `rate`, and is 1 without being given.", MAX_FLOW_PERIOD_S),
    ),
    "POST /v2/flowControl/{key}/unpin": _change(
        "unpin",
        "Let messages change limits again",
        query_parameter("parallelism", "Of the parallelism.", _BOOLEAN),
        query_parameter("rate", "Of the rate and its period.", _BOOLEAN),
    ),
    "POST /v2/flowControl/{key}/resetRate": _change("resetRate", "Begin a new window with a count of 0"),
    "POST /v2/flowControl/{key}/reset": _change("reset", "As `resetRate`, and count the attempts under way no longer"),
    "GET /v2/globalParallelism": Operation(
        id="getGlobalParallelism",
        tag="Flow control",
        summary="Attempts under way in all",
        answers={200: Answer(text="Now, and at most.", shape=GlobalParallelism)},
    ),
}

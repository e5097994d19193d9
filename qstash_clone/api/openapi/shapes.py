"""The JSON objects of answers that several resources share. What is not set is left out, it is never null."""

from typing import Annotated, NotRequired, TypedDict

from msgspec import Meta

from qstash_clone.api.openapi.description import HeaderMap, Ms

Cursor = Annotated[str, Meta(description="Where the next page begins; left out if there is none.")]


class Error(TypedDict):
    """Every answer from status 400 on."""

    error: Annotated[str, Meta(min_length=1, description="One sentence that names the field and shows its value.")]


class PublishResult(TypedDict):
    """A message that was stored, or the one that a publish repeats."""

    messageId: str
    url: NotRequired[Annotated[str, Meta(description="Left out of a repeat, whose URL may have been another.")]]
    deduplicated: NotRequired[Annotated[bool, Meta(description="It repeats an earlier publish; only ever true.")]]


class EndpointResult(TypedDict):
    """The message for one endpoint of a URL group."""

    messageId: str
    url: str
    deduplicated: NotRequired[Annotated[bool, Meta(description="It repeats an earlier publish; only ever true.")]]


class ScheduleResult(TypedDict):
    """A schedule that was stored, or the one that a request repeats."""

    scheduleId: str
    deduplicated: NotRequired[Annotated[bool, Meta(description="It repeats an earlier request; only ever true.")]]


class Labelled(TypedDict):
    """What messages, entries of the log and schedules have in common."""

    label: NotRequired[Annotated[str, Meta(description="The first of the labels.")]]
    labels: NotRequired[list[str]]
    flowControlKey: NotRequired[str]
    parallelism: NotRequired[Annotated[int, Meta(ge=1)]]
    rate: NotRequired[Annotated[int, Meta(ge=1)]]
    period: NotRequired[Annotated[int, Meta(ge=1, description="Seconds.")]]
    callback: NotRequired[str]
    failureCallback: NotRequired[str]
    retryDelayExpression: NotRequired[str]
    queueName: NotRequired[str]
    callerIP: NotRequired[Annotated[str, Meta(description="The address of the publisher.")]]
    callerIp: NotRequired[Annotated[str, Meta(description="The same.")]]


class Message(Labelled):
    """A message as it was published, with what the publisher asked to hide shown as a hash."""

    messageId: str
    url: Annotated[str, Meta(description="The destination exactly as published.")]
    method: str
    header: HeaderMap
    body: NotRequired[Annotated[str, Meta(description="If it is valid UTF-8; left out when empty.")]]
    bodyBase64: NotRequired[Annotated[str, Meta(description="If it is not.")]]
    maxRetries: Annotated[int, Meta(ge=0)]
    notBefore: Ms
    createdAt: Ms
    callbackHeader: NotRequired[HeaderMap]
    failureCallbackHeader: NotRequired[HeaderMap]
    topicName: NotRequired[Annotated[str, Meta(description="The URL group it was published to.")]]
    urlGroup: NotRequired[Annotated[str, Meta(description="The same.")]]
    endpointName: NotRequired[str]
    scheduleId: NotRequired[str]
    api: NotRequired[Annotated[str, Meta(description="`llm` for a message to the language model.")]]


class Page(TypedDict):
    """A part of a list."""

    cursor: NotRequired[Cursor]

"""A publish, checked and complete, into the message to store."""

from typing import assert_never

from qstash_clone.domain.destination import Destination, GroupDestination, LlmDestination, UrlDestination
from qstash_clone.domain.headers import PublishOptions
from qstash_clone.domain.lanes import origin_lane
from qstash_clone.domain.limits import Limits
from qstash_clone.domain.message import Deduplication, Extras, Message, NewMessage
from qstash_clone.errors import NotFound, NotSupportedYet, QuotaExceeded
from qstash_clone.ids import MessageId


def plan_deduplication(destination: Destination, options: PublishOptions, body: bytes) -> Deduplication | None:
    """What repeats of a publish will be recognised by, if they are to be.

    It comes before the message, because it decides in which partition the message has to be.
    """
    request = options.deduplication
    if request is None:
        return None
    match destination:
        case UrlDestination():
            text = destination.url
        case GroupDestination():
            text = destination.name
        case LlmDestination():
            text = "api/llm"
        case _:  # pragma: no cover
            assert_never(destination)
    return Deduplication(digest=request.digest(destination=text, body=body), window_ms=request.window_ms)


def plan_publish(
    message_id: MessageId,
    destination: Destination,
    options: PublishOptions,
    body: bytes,
    caller_ip: str,
    *,
    limits: Limits,
    now_ms: int,
    deduplication: Deduplication | None = None,
) -> NewMessage:
    """The message that a publish asks for; `deduplication` is that of `plan_deduplication`.

    `now_ms` serves the check of `Upstash-Not-Before` against the longest delay and nothing else: when the message
    is due is up to the store's clock, also for a time in the past. Raises `QuotaExceeded` when that check fails,
    `NotFound` for a URL group that does not exist and `NotSupportedYet` for the LLM upstream.
    """
    match destination:
        case UrlDestination():
            pass
        case GroupDestination():
            raise NotFound(f"topic {destination.name} not found")
        case LlmDestination():
            raise NotSupportedYet("api/llm: not supported yet")
        case _:  # pragma: no cover
            assert_never(destination)
    not_before_ms = options.not_before_ms
    if not_before_ms is not None and not_before_ms - now_ms > limits.max_delay_ms:
        raise QuotaExceeded(
            f"Upstash-Not-Before: {not_before_ms // 1000} is more than the maximum of "
            f"{limits.max_delay_ms // 1000}s from now"
        )
    return NewMessage(
        id=message_id,
        message=Message(
            url=destination.url,
            method=options.method,
            headers=options.headers,
            caller_ip=caller_ip,
            max_retries=options.max_retries,
            timeout_ms=options.timeout_ms,
            retry_delay_expression=options.retry_delay_expression,
            labels=options.labels,
            extras=_extras(options),
        ),
        body=body,
        lane=origin_lane(destination.origin),
        delay_ms=options.delay_ms if not_before_ms is None else 0,
        not_before_ms=not_before_ms,
        deduplication=deduplication,
    )


def _extras(options: PublishOptions) -> Extras | None:
    if options.callback is None and options.failure_callback is None and options.redaction is None:
        return None
    return Extras(callback=options.callback, failure_callback=options.failure_callback, redaction=options.redaction)

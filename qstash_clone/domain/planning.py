"""A publish, checked and complete, into the messages to store."""

from collections.abc import Sequence
from typing import assert_never

from qstash_clone.domain.destination import Destination, GroupDestination, LlmDestination, UrlDestination
from qstash_clone.domain.headers import PublishOptions
from qstash_clone.domain.lanes import flow_control_lane, queue_lane, route_text
from qstash_clone.domain.limits import Limits
from qstash_clone.domain.message import Deduplication, Extras, Message, NewMessage
from qstash_clone.domain.url_groups import UrlGroup
from qstash_clone.domain.urls import Origin, origin_of
from qstash_clone.errors import InvalidRequest, NotFound, QuotaExceeded
from qstash_clone.ids import MessageId


def publishable(name: str, group: UrlGroup | None) -> UrlGroup:
    """The group of this name, once it is clear that it can be published to.

    Raises `NotFound` if there is none and `InvalidRequest` if it has no endpoints.
    """
    if group is None:
        raise NotFound(f"topic {name} not found")
    if not group.endpoints:
        raise InvalidRequest(f"topic {name} has no endpoints")
    return group


def plan_deduplication(
    destination: Destination, options: PublishOptions, body: bytes, queue: str | None = None
) -> Deduplication | None:
    """What repeats of a publish will be recognised by, if they are to be; once for all endpoints of a group.

    It comes before the message, because it helps to decide in which partition the message has to be.
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
    digest = request.digest(destination=text, body=body, queue_name=queue)
    return Deduplication(digest=digest, window_ms=request.window_ms)


def plan_lanes(options: PublishOptions | Extras, queue: str | None) -> tuple[str, ...]:
    """The lanes with limits that messages with these options, or their callbacks, wait in: all have to live in one
    partition with the messages."""
    flow_control, callback, failure_callback = options.flow_control, options.callback, options.failure_callback
    if queue is None and flow_control is None and callback is None and failure_callback is None:
        return ()
    controls = (
        flow_control,
        None if callback is None else callback.flow_control,
        None if failure_callback is None else failure_callback.flow_control,
    )
    lanes = [] if queue is None else [queue_lane(queue)]
    lanes += [flow_control_lane(control.key) for control in controls if control is not None]
    return tuple(dict.fromkeys(lanes))


def plan_publish(
    message_id: MessageId,
    destination: UrlDestination,
    options: PublishOptions,
    body: bytes,
    caller_ip: str,
    *,
    limits: Limits,
    now_ms: int,
    deduplication: Deduplication | None = None,
    queue: str | None = None,
    api: str | None = None,
) -> NewMessage:
    """The message that a publish to a URL asks for; `deduplication` is that of `plan_deduplication`. `api` says what
    stands behind the URL if the publisher named that instead.

    `now_ms` serves the check of `Upstash-Not-Before` against the longest delay and nothing else: when the message
    is due is up to the store's clock, also for a time in the past. Raises `QuotaExceeded` when that check fails.
    """
    if options.not_before_ms is not None:
        check_not_before(options.not_before_ms, limits, now_ms)
    extras = _extras(options, api=api)
    return _plan(
        message_id, destination.url, destination.origin, extras, options, body, caller_ip, deduplication, queue
    )


def plan_fan_out(
    message_ids: Sequence[MessageId],
    group: UrlGroup,
    options: PublishOptions,
    body: bytes,
    caller_ip: str,
    *,
    limits: Limits,
    now_ms: int,
    deduplication: Deduplication | None = None,
    queue: str | None = None,
) -> list[NewMessage]:
    """The messages that a publish to a group asks for, one for each endpoint in order; the first carries the
    deduplication of all. Arguments and errors are those of `plan_publish`."""
    if options.not_before_ms is not None:
        check_not_before(options.not_before_ms, limits, now_ms)
    messages: list[NewMessage] = []
    for message_id, endpoint in zip(message_ids, group.endpoints, strict=True):
        url = endpoint.url
        extras = _extras(options, group.name, endpoint.name)
        of_all = None if messages else deduplication
        messages.append(_plan(message_id, url, origin_of(url), extras, options, body, caller_ip, of_all, queue))
    return messages


def message_of(url: str, options: PublishOptions, caller_ip: str, extras: Extras | None) -> Message:
    """What is published to a URL with these options, at once or at each firing of a schedule."""
    return Message(
        url=url,
        method=options.method,
        headers=options.headers,
        caller_ip=caller_ip,
        max_retries=options.max_retries,
        timeout_ms=options.timeout_ms,
        retry_delay_expression=options.retry_delay_expression,
        labels=options.labels,
        extras=extras,
    )


def _plan(
    message_id: MessageId,
    url: str,
    origin: Origin,
    extras: Extras | None,
    options: PublishOptions,
    body: bytes,
    caller_ip: str,
    deduplication: Deduplication | None,
    queue: str | None,
) -> NewMessage:
    not_before_ms, flow_control = options.not_before_ms, options.flow_control
    return NewMessage(
        id=message_id,
        message=message_of(url, options, caller_ip, extras),
        body=body,
        lane=route_text(origin, queue, None if flow_control is None else flow_control.key),
        delay_ms=options.delay_ms if not_before_ms is None else 0,
        not_before_ms=not_before_ms,
        deduplication=deduplication,
    )


def check_not_before(not_before_ms: int, limits: Limits, now_ms: int) -> None:
    """Raise `QuotaExceeded` for a time that is further away than the longest delay."""
    if not_before_ms - now_ms > limits.max_delay_ms:
        raise QuotaExceeded(
            f"Upstash-Not-Before: {not_before_ms // 1000} is more than the maximum of "
            f"{limits.max_delay_ms // 1000}s from now"
        )


def _extras(
    options: PublishOptions, url_group: str | None = None, endpoint_name: str | None = None, api: str | None = None
) -> Extras | None:
    callback, failure_callback = options.callback, options.failure_callback
    redaction, flow_control = options.redaction, options.flow_control
    if (
        callback is None
        and failure_callback is None
        and redaction is None
        and flow_control is None
        and url_group is None
        and api is None
    ):
        return None
    return Extras(
        callback=callback,
        failure_callback=failure_callback,
        redaction=redaction,
        flow_control=flow_control,
        url_group=url_group,
        endpoint_name=endpoint_name,
        api=api,
    )

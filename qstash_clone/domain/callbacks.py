"""The result of an attempt into the messages that report it; see docs/protocol/callbacks.md."""

from collections.abc import Callable

import msgspec

from qstash_clone.domain.header_names import header_map
from qstash_clone.domain.lanes import Route, host_lane, parse_route
from qstash_clone.domain.message import (
    CallbackMessage,
    CallbackSpec,
    Claim,
    Extras,
    Headers,
    Message,
    NewMessage,
    Settlement,
    SettlementKind,
)
from qstash_clone.domain.outcome import AttemptResult
from qstash_clone.domain.redaction import redaction_of_callback
from qstash_clone.ids import MessageId, format_message_id

_CONTENT_TYPE = "Content-Type"
_JSON: Headers = ((_CONTENT_TYPE, "application/json"),)
_DLQ_ID_START = b'{"dlqId":"'

_encode = msgspec.json.Encoder().encode


def plan_callbacks(
    claim: Claim, body: bytes, settlement: Settlement, result: AttemptResult, new_id: Callable[[], MessageId]
) -> tuple[CallbackMessage, ...]:
    """The messages to be stored together with a settlement: none, a callback, or one and a failure callback.

    `body` is the whole body of the source (the claim may hold only a part of it); `new_id` gives ids in the source's
    partition. A callback itself is never reported.
    """
    extras = claim.message.extras
    if extras is None or extras.source_message_id is not None:
        return ()
    failure_callback = extras.failure_callback if settlement.kind is SettlementKind.FAILED else None
    if extras.callback is None and failure_callback is None:
        return ()
    report = _report(claim, body, result)
    callbacks: list[CallbackMessage] = []
    if extras.callback is not None:
        message = _plan(new_id(), extras.callback, claim, report)
        callbacks.append(CallbackMessage(message=message))
    if failure_callback is not None:
        # The rest of the report stands behind an id that only the store will know.
        message = _plan(new_id(), failure_callback, claim, _DLQ_ID_START + b'",' + report[1:])
        callbacks.append(CallbackMessage(message=message, dlq_id_at=len(_DLQ_ID_START)))
    return tuple(callbacks)


def _report(claim: Claim, body: bytes, result: AttemptResult) -> bytes:
    source = claim.message
    # Byte strings are encoded as base 64.
    return _encode(
        {
            "status": result.status if result.error is None else 0,
            "header": header_map(result.headers),
            "body": result.body,
            "retried": claim.retried,
            "maxRetries": source.max_retries,
            "sourceMessageId": format_message_id(claim.id),
            **_origin(source.extras or Extras()),
            "url": source.url,
            "method": source.method,
            "sourceHeader": header_map(source.headers),
            "sourceBody": body,
            "notBefore": str(claim.not_before_ms),
            "createdAt": str(claim.created_ms),
            "callerIP": source.caller_ip,
        }
    )


def _origin(extras: Extras) -> dict[str, str]:
    """What the source comes from besides a publisher, as far as there is such a thing."""
    names = {"topicName": extras.url_group, "endpointName": extras.endpoint_name, "scheduleId": extras.schedule_id}
    return {name: value for name, value in names.items() if value is not None}


def _plan(message_id: MessageId, spec: CallbackSpec, claim: Claim, body: bytes) -> NewMessage:
    source = claim.message
    has_content_type = any(name == _CONTENT_TYPE for name, _ in spec.headers)
    redaction = None if source.extras is None else redaction_of_callback(source.extras.redaction)
    message = Message(
        url=spec.url,
        method=spec.method,
        headers=spec.headers if has_content_type else _JSON + spec.headers,
        caller_ip=source.caller_ip,
        max_retries=source.max_retries if spec.max_retries is None else spec.max_retries,
        retry_delay_expression=spec.retry_delay_expression or source.retry_delay_expression,
        labels=source.labels if spec.labels is None else spec.labels,
        extras=Extras(
            source_message_id=claim.id,
            redaction=redaction,
            flow_control=spec.flow_control,
            schedule_id=None if source.extras is None else source.extras.schedule_id,
        ),
    )
    if spec.timeout_ms is not None:
        message = msgspec.structs.replace(message, timeout_ms=spec.timeout_ms)
    return NewMessage(id=message_id, message=message, body=body, lane=_route(spec, claim).text, delay_ms=spec.delay_ms)


def _route(spec: CallbackSpec, claim: Claim) -> Route:
    """A callback is no member of a queue, but that of a member keeps the member's slot."""
    queue = parse_route(claim.lane).queue
    slot = None if queue is None else (queue, claim.id)
    if spec.flow_control is not None:
        return Route(flow_control_key=spec.flow_control.key, slot=slot)
    return Route(host=host_lane(spec.url).removeprefix("h:"), slot=slot)

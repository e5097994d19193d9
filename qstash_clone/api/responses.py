"""The JSON shapes that QStash's clients expect; what is unset is omitted, never null."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from qstash_clone.domain.header_names import header_map
from qstash_clone.domain.lanes import parse_route
from qstash_clone.domain.lifecycle import LogEvent
from qstash_clone.domain.log import LogEntry
from qstash_clone.domain.message import (
    AttemptRecord,
    DeadLetter,
    Extras,
    Headers,
    Message,
    NewMessage,
    SigningKeys,
    State,
    StoredMessage,
)
from qstash_clone.domain.redaction import shown_body, shown_headers
from qstash_clone.domain.schedules import StoredSchedule
from qstash_clone.domain.url_groups import UrlGroup
from qstash_clone.ids import MessageId, format_message_id
from qstash_clone.storage.interface import DeadLetterPage, DeduplicationRecord, LogPage, MessagePage, Published
from qstash_clone.storage.resources import ScheduleCreation

JSON = b"application/json"

_SCHEDULE_STATES = {State.DELIVERED: "SUCCESS", State.FAILED: "FAIL", State.CANCELED: "FAIL"}

UNFINISHED_TEXT = "workers took it again and again without reporting a result"
"""Why a message failed that has no failed attempt."""


class JsonResponse(Response):
    """Starlette's response with msgspec's encoder."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def publish_result_body(message_id: str, url: str) -> bytes:
    """The answer to a publish to a URL; see docs/protocol/messages.md. URLs are ASCII without quotes."""
    return b'{"messageId":"' + message_id.encode() + b'","url":"' + url.encode() + b'"}'


def duplicate_result_body(message_id: str) -> bytes:
    """The answer to a publish that repeats an earlier one, whose URL may have been another."""
    return b'{"messageId":"' + message_id.encode() + b'","deduplicated":true}'


def fan_out_result_body(messages: Sequence[NewMessage]) -> bytes:
    """The answer to a publish to a URL group: one result for each endpoint, in order."""
    results = [publish_result_body(format_message_id(message.id), message.message.url) for message in messages]
    return b"[" + b",".join(results) + b"]"


def duplicate_fan_out_result_body(published: Published) -> bytes:
    """The answer to a publish to a URL group that repeats an earlier publish: the results of that one."""
    # Clients insist on a URL in every element, which is not known where a publish to a single URL is repeated.
    originals = published.originals or ((published.id, ""),)
    results = [
        {"messageId": format_message_id(message_id), "deduplicated": True, "url": url} for message_id, url in originals
    ]
    return msgspec.json.encode(results)


def schedule_result_body(creation: ScheduleCreation) -> bytes:
    """The answer to a request for a schedule. Ids are names: they need no escapes."""
    fields = b'{"scheduleId":"' + creation.schedule_id.encode() + b'"'
    return fields + (b',"deduplicated":true}' if creation.is_duplicate else b"}")


def message_fields(stored: StoredMessage, trim_body_bytes: int | None = None) -> dict[str, Any]:
    """A message as `GET /v2/messages/{id}` shows it."""
    message = stored.message
    fields: dict[str, Any] = {
        "messageId": format_message_id(stored.id),
        "url": message.url,
        "method": message.method,
        "header": _shown_header_map(message, message.headers),
        "maxRetries": message.max_retries,
        "notBefore": stored.not_before_ms,
        "createdAt": stored.created_ms,
    }
    _add_body(fields, "body", _shown_body(message, stored.body), trim_body_bytes)
    _add_callbacks(fields, message, "callbackHeader", "failureCallbackHeader")
    if message.retry_delay_expression is not None:
        fields["retryDelayExpression"] = message.retry_delay_expression
    _add_attribution(fields, stored)
    if "topicName" in fields:
        fields["urlGroup"] = fields["topicName"]
    return fields


def message_page_fields(page: MessagePage) -> dict[str, Any]:
    """One page; `cursor` only if more may follow."""
    return _page("messages", [message_fields(stored) for stored in page.messages], page.cursor)


def dead_letter_fields(letter: DeadLetter, trim_body_bytes: int | None = None) -> dict[str, Any]:
    """A dead letter: the message, and what its last attempt came back with."""
    fields = message_fields(letter.stored, trim_body_bytes)
    fields["dlqId"] = letter.dlq_id
    attempt = letter.stored.last_attempt
    fields["responseStatus"] = 0 if attempt is None else attempt.status
    if attempt is not None:
        if attempt.headers:
            fields["responseHeader"] = header_map(attempt.headers)
        _add_body(fields, "responseBody", attempt.body, trim_body_bytes)
    return fields


def dead_letter_page_fields(page: DeadLetterPage, trim_body_bytes: int | None = None) -> dict[str, Any]:
    """One page, with bodies trimmed; `cursor` only if more may follow."""
    return _page("messages", [dead_letter_fields(letter, trim_body_bytes) for letter in page.entries], page.cursor)


def log_page_fields(key: str, page: LogPage, trim_body_bytes: int | None) -> dict[str, Any]:
    """One page under the name that its path has for it; `cursor` only if more may follow."""
    return _page(key, [log_entry_fields(entry, trim_body_bytes) for entry in page.entries], page.cursor)


def log_entry_fields(entry: LogEntry, trim_body_bytes: int | None) -> dict[str, Any]:
    """An entry of the log; bodies are in base64 here, trimmed before that, or left out for a negative number."""
    stored, message = entry.stored, entry.stored.message
    fields: dict[str, Any] = {
        "time": entry.time_ms,
        "messageId": format_message_id(stored.id),
        "state": entry.event.wire_name,
        "url": message.url,
        "method": message.method,
        "header": _shown_header_map(message, message.headers),
        "maxRetries": message.max_retries,
        "timeout": message.timeout_ms,
    }
    _add_base64(fields, "body", _shown_body(message, stored.body), trim_body_bytes)
    if entry.event is LogEvent.ERROR and entry.attempt is not None:
        _add_attempt(fields, entry.attempt, trim_body_bytes)
    elif entry.event is LogEvent.FAILED:
        attempt = stored.last_attempt
        fields["error"] = UNFINISHED_TEXT if attempt is None else attempt.error
    if entry.next_delivery_ms is not None:
        fields["nextDeliveryTime"] = entry.next_delivery_ms
    _add_callbacks(fields, message, "callbackHeaders", "failureCallbackHeaders")
    if message.retry_delay_expression is not None:
        fields["retryDelayExpr"] = message.retry_delay_expression
        fields["retryDelayExpression"] = message.retry_delay_expression
    _add_attribution(fields, stored)
    return fields


def deduplication_fields(deduplication_id: str, record: DeduplicationRecord) -> dict[str, Any]:
    """Which message or schedule repeats of an id are answered with, and until when."""
    fields: dict[str, Any] = {"deduplicationId": deduplication_id}
    if record.message_id is not None:
        fields["messageId"] = format_message_id(record.message_id)
    if record.schedule_id is not None:
        fields["scheduleId"] = record.schedule_id
    fields["expiresAt"] = record.expires_ms
    return fields


def schedule_fields(stored: StoredSchedule, states: Mapping[MessageId, State]) -> dict[str, Any]:
    """A schedule as `GET /v2/schedules/{id}` shows it; `states` are those of the messages that it published last, of
    which those that are not known any more are left out."""
    schedule, message = stored.schedule, stored.schedule.message
    fields: dict[str, Any] = {
        "scheduleId": schedule.id,
        "cron": schedule.cron,
        "destination": schedule.destination,
        "method": message.method,
        "header": _shown_header_map(message, message.headers),
        "retries": message.max_retries,
        "isPaused": stored.is_paused,
        "createdAt": stored.created_ms,
    }
    _add_body(fields, "body", _shown_body(message, schedule.body))
    _add_callbacks(fields, message, "callbackHeader", "failureCallbackHeader")
    _add_flow_control(fields, message.extras)
    _add_labels_and_caller(fields, message)
    shown = [
        (format_message_id(one), _SCHEDULE_STATES.get(states[one], "IN_PROGRESS"))
        for one in stored.last_message_ids
        if one in states
    ]
    given: dict[str, Any] = {
        "delay": schedule.delay_ms // 1000 or None,
        "timeout": message.timeout_ms // 1000 if schedule.has_timeout else None,
        "retryDelayExpression": message.retry_delay_expression,
        "queueName": schedule.queue,
        "lastScheduleTime": stored.last_fire_ms,
        "nextScheduleTime": stored.next_fire_ms,
        "lastScheduleStates": dict(shown) or None,
        "error": stored.error,
    }
    fields.update({name: value for name, value in given.items() if value is not None})
    return fields


def url_group_fields(group: UrlGroup) -> dict[str, Any]:
    """As `GET /v2/topics/{name}` shows it; clients compare whole endpoints, so these have nothing but URL and name."""
    fields: dict[str, Any] = {
        "name": group.name,
        "createdAt": group.created_ms,
        "updatedAt": group.updated_ms,
        "endpoints": [
            {"url": one.url} if one.name is None else {"url": one.url, "name": one.name} for one in group.endpoints
        ],
    }
    if group.headers:
        fields["headers"] = header_map(group.headers)
    return fields


def retried_fields(message_id: MessageId, url: str) -> dict[str, str]:
    """A dead letter that was published again: a publish result."""
    return {"messageId": format_message_id(message_id), "url": url}


def signing_keys_fields(keys: SigningKeys) -> dict[str, str]:
    """The pair under its wire names."""
    return {"current": keys.current, "next": keys.next}


def _shown_header_map(message: Message, headers: Headers) -> dict[str, list[str]]:
    extras = message.extras
    return header_map(headers if extras is None else shown_headers(headers, extras.redaction))


def _shown_body(message: Message, body: bytes) -> bytes:
    extras = message.extras
    return body if extras is None else shown_body(body, extras.redaction)


def _add_callbacks(fields: dict[str, Any], message: Message, header: str, failure_header: str) -> None:
    extras = message.extras
    if extras is None:
        return
    for name, header_name, spec in (
        ("callback", header, extras.callback),
        ("failureCallback", failure_header, extras.failure_callback),
    ):
        if spec is not None:
            fields[name] = spec.url
            if spec.headers:
                fields[header_name] = _shown_header_map(message, spec.headers)


def _add_attribution(fields: dict[str, Any], stored: StoredMessage) -> None:
    message = stored.message
    if message.extras is not None:
        _add_origin(fields, message.extras)
    queue = parse_route(stored.lane).queue
    if queue is not None:
        fields["queueName"] = queue
    _add_labels_and_caller(fields, message)


def _add_labels_and_caller(fields: dict[str, Any], message: Message) -> None:
    if message.labels:
        fields["label"] = message.labels[0]
        fields["labels"] = message.labels
    if message.caller_ip:
        fields["callerIP"] = message.caller_ip
        fields["callerIp"] = message.caller_ip


def _add_origin(fields: dict[str, Any], extras: Extras) -> None:
    given = {
        "topicName": extras.url_group,
        "endpointName": extras.endpoint_name,
        "scheduleId": extras.schedule_id,
        "api": extras.api,
    }
    fields.update({name: value for name, value in given.items() if value is not None})
    _add_flow_control(fields, extras)


def _add_flow_control(fields: dict[str, Any], extras: Extras | None) -> None:
    control = None if extras is None else extras.flow_control
    if control is None:
        return
    given = {
        "flowControlKey": control.key,
        "parallelism": control.parallelism,
        "rate": control.rate,
        "period": control.period_s,
    }
    fields.update({name: value for name, value in given.items() if value is not None})


def _add_attempt(fields: dict[str, Any], attempt: AttemptRecord, trim_body_bytes: int | None) -> None:
    fields["error"] = attempt.error
    fields["responseStatus"] = attempt.status
    if attempt.headers:
        headers = header_map(attempt.headers)
        fields["responseHeaders"] = headers
        fields["responseHeader"] = headers
    _add_base64(fields, "responseBody", attempt.body, trim_body_bytes)


def _add_body(fields: dict[str, Any], name: str, body: bytes, trim_bytes: int | None = None) -> None:
    """As text if all of it is text, else in base64."""
    shown = body if trim_bytes is None else body[: max(0, trim_bytes)]
    if not shown:
        return
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        fields[name + "Base64"] = b64encode(shown).decode()
        return
    if len(shown) < len(body):
        # The cut may go through a character.
        text = shown.decode("utf-8", "ignore")
    if text:
        fields[name] = text


def _add_base64(fields: dict[str, Any], name: str, body: bytes, trim_bytes: int | None) -> None:
    shown = body if trim_bytes is None else body[: max(0, trim_bytes)]
    if shown:
        fields[name] = b64encode(shown).decode()


def _page(name: str, entries: list[dict[str, Any]], cursor: str | None) -> dict[str, Any]:
    return {name: entries} if cursor is None else {name: entries, "cursor": cursor}

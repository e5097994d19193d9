"""The JSON shapes that QStash's clients expect; what is unset is omitted, never null."""

from base64 import b64encode
from collections.abc import Iterable
from typing import Any

import msgspec
from starlette.responses import Response

from qstash_clone.domain.message import DeadLetter, SigningKeys, StoredMessage
from qstash_clone.ids import format_message_id
from qstash_clone.storage.interface import DeadLetterPage

JSON = b"application/json"


class JsonResponse(Response):
    """Starlette's response with msgspec's encoder."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def publish_result_body(message_id: str, url: str) -> bytes:
    """The answer to a publish to a URL; see docs/protocol/messages.md. URLs are ASCII without quotes."""
    return b'{"messageId":"' + message_id.encode() + b'","url":"' + url.encode() + b'"}'


def message_fields(stored: StoredMessage) -> dict[str, Any]:
    """A message as `GET /v2/messages/{id}` shows it."""
    message = stored.message
    fields: dict[str, Any] = {
        "messageId": format_message_id(stored.id),
        "url": message.url,
        "method": message.method,
        "header": header_map(message.headers),
        "maxRetries": message.max_retries,
        "notBefore": stored.not_before_ms,
        "createdAt": stored.created_ms,
    }
    _add_body(fields, "body", stored.body)
    if message.retry_delay_expression is not None:
        fields["retryDelayExpression"] = message.retry_delay_expression
    if message.labels:
        fields["label"] = message.labels[0]
        fields["labels"] = message.labels
    if message.caller_ip:
        fields["callerIP"] = message.caller_ip
        fields["callerIp"] = message.caller_ip
    return fields


def dead_letter_fields(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter: the message, and what its last attempt came back with."""
    fields = message_fields(letter.stored)
    fields["dlqId"] = letter.dlq_id
    attempt = letter.stored.last_attempt
    fields["responseStatus"] = 0 if attempt is None else attempt.status
    if attempt is not None:
        if attempt.headers:
            fields["responseHeader"] = header_map(attempt.headers)
        _add_body(fields, "responseBody", attempt.body)
    return fields


def dead_letter_page_fields(page: DeadLetterPage) -> dict[str, Any]:
    """One page; `cursor` only if more may follow."""
    fields: dict[str, Any] = {"messages": [dead_letter_fields(letter) for letter in page.entries]}
    if page.cursor is not None:
        fields["cursor"] = page.cursor
    return fields


def signing_keys_fields(keys: SigningKeys) -> dict[str, str]:
    """The pair under its wire names."""
    return {"current": keys.current, "next": keys.next}


def header_map(headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Header lines as `{"Name": ["value", ...]}`; a value that is not UTF-8 is read as latin-1."""
    lines: dict[str, list[str]] = {}
    for name, value in headers:
        lines.setdefault(name, []).append(_header_text(value))
    return lines


def _header_text(value: str) -> str:
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def _add_body(fields: dict[str, Any], name: str, body: bytes) -> None:
    if not body:
        return
    try:
        fields[name] = body.decode("utf-8")
    except UnicodeDecodeError:
        fields[name + "Base64"] = b64encode(body).decode()

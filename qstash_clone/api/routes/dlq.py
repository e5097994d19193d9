"""The dead letter queue: list it, show, delete or retry one entry. See docs/protocol/dead-letters.md."""

import re
from typing import Never

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from qstash_clone.api.hot_path import Stores
from qstash_clone.api.requests import Head, decode_segment, has_configuration, query_parameters
from qstash_clone.api.responses import JsonResponse, dead_letter_fields, dead_letter_page_fields
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import InvalidRequest, NotFound, NotSupportedYet
from qstash_clone.ids import format_message_id

MAX_COUNT = 100

_LATER = frozenset(
    {
        "messageId", "dlqIds", "url", "topicName", "queueName", "scheduleId", "label", "callerIp", "callerIP",
        "flowControlKey", "responseStatus", "fromDate", "toDate",
    }
)  # fmt: skip
_IGNORED = frozenset({"api"})
"""Obsolete, still sent by older clients."""
_COUNT = re.compile(r"\+?[0-9]{1,18}")


class DeadLetterQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of the dead letter queue is wanted."""

    cursor: str | None = None
    count: int = MAX_COUNT
    newest_first: bool = False
    is_empty: bool = False
    """It asks for the entries of a source that this service does not have."""


class DeadLetterRoutes:
    """`/v2/dlq` and below."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def list(self, request: Request) -> Response:
        """One page, oldest first unless `order` says otherwise."""
        query = parse_query(_head(request).query)
        if query.is_empty:
            return JsonResponse({"messages": []})
        page = await self._stores.admin.list_dead_letters(
            cursor=query.cursor, count=query.count, newest_first=query.newest_first
        )
        return JsonResponse(dead_letter_page_fields(page))

    async def get(self, request: Request) -> Response:
        """One entry."""
        letter = await self._stores.admin.get_dead_letter(_dlq_id(request))
        return JsonResponse(dead_letter_fields(letter)) if letter is not None else _unknown(request)

    async def delete(self, request: Request) -> Response:
        """Drop one entry for good."""
        deleted = await self._stores.admin.delete_dead_letter(_dlq_id(request))
        return JsonResponse({}) if deleted else _unknown(request)

    async def retry(self, request: Request) -> Response:
        """Publish an entry again as a fresh message, and take it out of the queue."""
        override = has_configuration(_head(request))
        if override is not None:
            raise NotSupportedYet(f"{override}: overriding it for a retry is not supported yet")
        letter = await self._stores.admin.get_dead_letter(_dlq_id(request))
        message_id = None if letter is None else await self._stores.admin.retry_dead_letter(letter.dlq_id)
        if letter is None or message_id is None:
            _unknown(request)
        result = {"messageId": format_message_id(message_id), "url": letter.stored.message.url}
        return JsonResponse(result, status_code=201)


def parse_query(query: bytes) -> DeadLetterQuery:
    """Read `cursor`, `count` and `order`; raises InvalidRequest for anything that would otherwise be ignored."""
    given: dict[str, str] = {}
    for name, value in query_parameters(query):
        if name in _LATER:
            raise NotSupportedYet(f"{name}: this filter is not supported yet")
        if name in _IGNORED:
            continue
        if name not in ("cursor", "count", "order", "source"):
            raise InvalidRequest(f"{quoted(name)} is not a parameter of the dead letter queue")
        if not value:
            raise InvalidRequest(f"{name}: the value is empty")
        if given.setdefault(name, value) != value:
            raise InvalidRequest(f"{name}: given twice with different values")
    order = given.get("order", "earliestFirst")
    if order not in ("earliestFirst", "latestFirst"):
        raise InvalidRequest(f"order: invalid value {quoted(order)}, use earliestFirst or latestFirst")
    return DeadLetterQuery(
        cursor=given.get("cursor"),
        count=_parse_count(given.get("count")),
        newest_first=order == "latestFirst",
        is_empty=given.get("source") == "workflow",
    )


def _parse_count(text: str | None) -> int:
    if text is None:
        return MAX_COUNT
    if _COUNT.fullmatch(text) is None or int(text) < 1:
        raise InvalidRequest(f"count: invalid number {quoted(text)}, use an integer from 1 on")
    return min(int(text), MAX_COUNT)


def _head(request: Request) -> Head:
    return request.scope["head"]


def _dlq_id(request: Request) -> str:
    return decode_segment(request.path_params["dlq_id"])


def _unknown(request: Request) -> Never:
    raise NotFound(f"dead letter {quoted(_dlq_id(request))} not found")

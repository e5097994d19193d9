"""Messages: show one or why it waits, list what is pending, cancel one or many. See docs/protocol/messages.md."""

from typing import Never

from starlette.requests import Request
from starlette.responses import Response

from qstash_clone.api.explain import explain
from qstash_clone.api.hot_path import Stores
from qstash_clone.api.requests import decode_segment, parameters_of, read_json_object
from qstash_clone.api.responses import JsonResponse, message_fields, message_page_fields
from qstash_clone.domain.filter_parameters import CANCEL, FilterRules, ParsedFilter, parse_filter
from qstash_clone.domain.filters import Filter
from qstash_clone.domain.lifecycle import LogEvent
from qstash_clone.domain.message import State
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import NotFound
from qstash_clone.ids import MessageId, parse_message_id
from qstash_clone.settings import Settings
from qstash_clone.storage.interface import CancelResult

MAX_PAGE = 100

PENDING = FilterRules(
    names=CANCEL.names - {"messageIds"} | {"cursor"},
    ignored=CANCEL.ignored - {"cursor"},
    max_count=MAX_PAGE,
    default_count=MAX_PAGE,
)


class MessageRoutes:
    """`/v2/messages` and below."""

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self._stores = stores
        self._lease_ms = settings.lease_ms

    async def get(self, request: Request) -> Response:
        """The message, until a grace period after it ended."""
        stored = await self._stores.admin.get_message(_message_id(request))
        return JsonResponse(message_fields(stored)) if stored is not None else _unknown(request)

    async def explain(self, request: Request) -> Response:
        """Why it has not been delivered yet, in fields and in one sentence."""
        message_id = _message_id(request)
        where = await self._stores.admin.locate(message_id)
        if where is None:
            _unknown(request)
        is_active = where.stored.state is State.ACTIVE
        since_ms = await self._newest_start_ms(message_id) if is_active else None
        return JsonResponse(explain(where, active_since_ms=since_ms, lease_ms=self._lease_ms))

    async def list(self, request: Request) -> Response:
        """One page of what has not ended."""
        wanted = parse_filter(parameters_of(request), PENDING)
        page = await self._stores.admin.list_pending(
            wanted.selection, cursor=wanted.cursor, count=wanted.count or MAX_PAGE
        )
        return JsonResponse(message_page_fields(page))

    async def cancel(self, request: Request) -> Response:
        """`{"cancelled": 1}`, or 0 if the cancellation of a running attempt had been requested before."""
        result = await self._stores.admin.cancel(_message_id(request))
        if result is CancelResult.NOT_FOUND:
            _unknown(request)
        return JsonResponse({"cancelled": 0 if result is CancelResult.ALREADY_REQUESTED else 1})

    async def cancel_many(self, request: Request) -> Response:
        """`{"cancelled": n}` and nothing else: some clients read a map of numbers."""
        body = await read_json_object(request)
        wanted = parse_filter(parameters_of(request), CANCEL, body)
        if wanted.message_ids is None:
            cancelled = await self._stores.admin.cancel_matching(wanted.selection, limit=wanted.count)
        else:
            cancelled = await self._cancel_these(wanted, wanted.message_ids)
        return JsonResponse({"cancelled": cancelled})

    async def _cancel_these(self, wanted: ParsedFilter, message_ids: tuple[MessageId, ...]) -> int:
        if wanted.count is None:
            return await self._stores.admin.cancel_many(message_ids)
        cancelled = 0
        rest = message_ids
        while rest and cancelled < wanted.count:
            batch, rest = rest[: wanted.count - cancelled], rest[wanted.count - cancelled :]
            cancelled += await self._stores.admin.cancel_many(batch)
        return cancelled

    async def _newest_start_ms(self, message_id: MessageId) -> int | None:
        """When the attempt under way began, as far as the log goes."""
        starts = Filter(message_ids=frozenset((message_id,)), events=frozenset((LogEvent.ACTIVE,)))
        page = await self._stores.admin.read_log(starts, cursor=None, count=1, newest_first=True)
        return page.entries[0].time_ms if page.entries else None


def _message_id(request: Request) -> MessageId:
    message_id = parse_message_id(decode_segment(request.path_params["message_id"]))
    return message_id if message_id is not None else _unknown(request)


def _unknown(request: Request) -> Never:
    raise NotFound(f"message {quoted(decode_segment(request.path_params['message_id']))} not found")

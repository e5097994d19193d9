"""The dead letter queue: list it, show, delete or retry one entry or many. See docs/protocol/dead-letters.md."""

from typing import Any, Never

from starlette.requests import Request
from starlette.responses import Response

from qstash_clone.api.auth import token_came_by_query
from qstash_clone.api.hot_path import Stores, check_callbacks, egress_of, limits_of
from qstash_clone.api.requests import Head, decode_segment, parameters_of, query_configuration, read_json_object
from qstash_clone.api.responses import JsonResponse, dead_letter_fields, dead_letter_page_fields, retried_fields
from qstash_clone.clock import Clock
from qstash_clone.domain.filter_parameters import DEAD_LETTERS, DEAD_LETTERS_BULK, ParsedFilter, parse_filter
from qstash_clone.domain.message import DeadLetter, Message
from qstash_clone.domain.overrides import AT_ONCE, Delay, delay_of, override
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import InvalidRequest, NotFound
from qstash_clone.settings import Settings
from qstash_clone.storage.interface import DeadLetterPage

MAX_PAGE = 100
_IDS_AT_ONCE = 10
"""Entries looked up at a time where ids are given: each may hold a body and an answer of a megabyte."""


class DeadLetterRoutes:
    """`/v2/dlq` and below."""

    def __init__(self, settings: Settings, stores: Stores, clock: Clock) -> None:
        self._stores = stores
        self._clock = clock
        self._limits = limits_of(settings)
        self._egress = egress_of(settings)

    async def list(self, request: Request) -> Response:
        """One page, oldest first unless `order` says otherwise, or the entries of given ids."""
        wanted = parse_filter(parameters_of(request), DEAD_LETTERS)
        if wanted.dlq_ids is None:
            return JsonResponse(dead_letter_page_fields(await self._page(wanted), wanted.trim_body_bytes))
        if len(wanted.dlq_ids) > MAX_PAGE:
            raise InvalidRequest(f"dlqIds: {len(wanted.dlq_ids)} ids are more than the {MAX_PAGE} shown at once")
        letters = await self._stores.admin.get_dead_letters(wanted.dlq_ids)
        found = [letter for letter in letters if letter is not None]
        page = DeadLetterPage(entries=found, cursor=None)
        return JsonResponse(dead_letter_page_fields(page, wanted.trim_body_bytes))

    async def get(self, request: Request) -> Response:
        """One entry."""
        dlq_id = _dlq_id(request)
        letter = await self._stores.admin.get_dead_letter(dlq_id)
        return JsonResponse(dead_letter_fields(letter)) if letter is not None else _unknown(dlq_id)

    async def delete(self, request: Request) -> Response:
        """Drop one entry for good."""
        dlq_id = _dlq_id(request)
        return JsonResponse({}) if await self._stores.admin.delete_dead_letter(dlq_id) else _unknown(dlq_id)

    async def delete_many(self, request: Request) -> Response:
        """Drop the entries of given ids, of which absent ones are passed over, or those of one page."""
        wanted = parse_filter(parameters_of(request), DEAD_LETTERS_BULK, await read_json_object(request))
        if wanted.dlq_ids is not None:
            return JsonResponse({"deleted": await self._stores.admin.delete_dead_letters(wanted.dlq_ids)})
        page = await self._page(wanted)
        dlq_ids = [letter.dlq_id for letter in page.entries]
        deleted = await self._stores.admin.delete_dead_letters(dlq_ids) if dlq_ids else 0
        return JsonResponse(_bulk_fields("deleted", deleted, page.cursor))

    async def retry(self, request: Request) -> Response:
        """Publish an entry again as a fresh message, and take it out of the queue."""
        dlq_id = _dlq_id(request)
        letter = await self._stores.admin.get_dead_letter(dlq_id)
        result = None if letter is None else await self._retry(request, letter)
        return JsonResponse(result, status_code=201) if result is not None else _unknown(dlq_id)

    async def retry_many(self, request: Request) -> Response:
        """As `retry`, for the entries of given ids, all of which must exist, or for those of one page."""
        wanted = parse_filter(parameters_of(request), DEAD_LETTERS_BULK, await read_json_object(request))
        if wanted.dlq_ids is None:
            page = await self._page(wanted)
            results = [await self._retry(request, letter) for letter in page.entries]
            return _retried_response(results, page.cursor)
        await self._check_all(request, wanted.dlq_ids)
        results: list[dict[str, str] | None] = []
        for dlq_id in wanted.dlq_ids:
            letter = await self._stores.admin.get_dead_letter(dlq_id)
            results.append(None if letter is None else await self._retry(request, letter))
        return _retried_response(results, None)

    async def _page(self, wanted: ParsedFilter) -> DeadLetterPage:
        return await self._stores.admin.list_dead_letters(
            wanted.selection, cursor=wanted.cursor, count=wanted.count or MAX_PAGE, newest_first=wanted.newest_first
        )

    async def _check_all(self, request: Request, dlq_ids: tuple[str, ...]) -> None:
        """Raise before anything was retried if one is absent, or if the request's options are not acceptable."""
        for first in range(0, len(dlq_ids), _IDS_AT_ONCE):
            batch = dlq_ids[first : first + _IDS_AT_ONCE]
            for dlq_id, letter in zip(batch, await self._stores.admin.get_dead_letters(batch), strict=True):
                if letter is None:
                    _unknown(dlq_id)
                self._overridden(request, letter.stored.message)

    async def _retry(self, request: Request, letter: DeadLetter) -> dict[str, str] | None:
        """The result of one, None if somebody else was faster."""
        message, delay = self._overridden(request, letter.stored.message)
        admin = self._stores.admin
        if message == letter.stored.message and delay == AT_ONCE:
            message_id = await admin.retry_dead_letter(letter.dlq_id)
        else:
            message_id = await admin.retry_dead_letter_as(letter, message, delay)
        return None if message_id is None else retried_fields(message_id, message.url)

    def _overridden(self, request: Request, message: Message) -> tuple[Message, Delay]:
        head = _head(request)
        query_config = query_configuration(head.query)
        changed = override(
            message, head.headers, query_config, self._limits, authorization_is_payload=token_came_by_query(head)
        )
        if changed.extras is not None and changed != message:
            check_callbacks(self._egress, changed.extras.callback, changed.extras.failure_callback)
        return changed, delay_of(head.headers, query_config, self._limits, now_ms=self._clock.now_ms())


def _retried_response(results: list[dict[str, str] | None], cursor: str | None) -> Response:
    responses = [result for result in results if result is not None]
    return JsonResponse(_bulk_fields("responses", responses, cursor), status_code=201)


def _bulk_fields(name: str, value: object, cursor: str | None) -> dict[str, Any]:
    """`cursor` only if more candidates remain."""
    return {name: value} if cursor is None else {name: value, "cursor": cursor}


def _head(request: Request) -> Head:
    return request.scope["head"]


def _dlq_id(request: Request) -> str:
    return decode_segment(request.path_params["dlq_id"])


def _unknown(dlq_id: str) -> Never:
    raise NotFound(f"dead letter {quoted(dlq_id)} not found")

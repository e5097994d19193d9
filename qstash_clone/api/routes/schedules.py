"""Schedules: create, show, pause, delete. See docs/protocol/schedules.md."""

from collections.abc import AsyncIterator
from typing import Never

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from qstash_clone.api.auth import CallerAddress, token_came_by_query
from qstash_clone.api.hot_path import Publisher, Stores
from qstash_clone.api.requests import Head, decode_segment, read_body
from qstash_clone.api.responses import JSON, JsonResponse, schedule_fields, schedule_result_body
from qstash_clone.domain.destination import parse_path_destination
from qstash_clone.domain.quoting import quoted
from qstash_clone.domain.schedules import StoredSchedule, parse_state_change
from qstash_clone.errors import NotFound
from qstash_clone.observability import MESSAGES_DEDUPLICATED
from qstash_clone.settings import Settings

_PREFIX_BYTES = len(b"/v2/schedules/")


class ScheduleRoutes:
    """`/v2/schedules`."""

    def __init__(self, settings: Settings, stores: Stores, publisher: Publisher) -> None:
        self._stores = stores
        self._publisher = publisher
        self._caller = CallerAddress(settings.trusted_proxies)
        self._max_body_bytes = settings.max_message_bytes

    async def post(self, request: Request) -> Response:
        """Create or replace a schedule, unless the path says pause or resume: `POST` is for both."""
        head: Head = request.scope["head"]
        rest = head.raw_path[_PREFIX_BYTES:]
        change = parse_state_change(rest)
        if change is not None:
            return await self._set_paused(change.schedule_id, is_paused=change.is_paused)
        parsed = parse_path_destination(rest, head.query)
        group = await self._publisher.check_destination(parsed.destination)
        options = self._publisher.parse_options(
            head.headers, parsed.config, group, authorization_is_payload=token_came_by_query(head)
        )
        body = await read_body(request.receive, head, self._max_body_bytes)
        creation = await self._publisher.create_schedule(
            parsed.destination, group, options, body, self._caller.of(head), None, head.request_id.decode()
        )
        if creation.is_duplicate:
            MESSAGES_DEDUPLICATED.inc()
        status = 202 if creation.is_duplicate else 200
        return Response(schedule_result_body(creation), status, media_type=JSON.decode())

    async def list(self, request: Request) -> Response:
        """All, in the order of their creation."""
        slices = self._stores.schedules.list_schedules()
        # The first one now: a store that is away is still answered 503.
        first = await anext(slices, None)
        fields = [] if first is None else await self._fields(first)
        return StreamingResponse(self._array(fields, slices), media_type=JSON.decode())

    async def get(self, request: Request) -> Response:
        """One schedule, and what became of the messages of its last firing."""
        schedule_id = _id(request)
        stored = await self._stores.schedules.get_schedule(schedule_id)
        return JsonResponse((await self._fields([stored]))[0]) if stored is not None else _unknown(schedule_id)

    async def delete(self, request: Request) -> Response:
        """End all future firings of a schedule; it need not exist. Its messages are delivered all the same."""
        await self._stores.schedules.delete_schedule(_id(request))
        return JsonResponse({})

    async def pause(self, request: Request) -> Response:
        """Ignore instants until it is resumed."""
        return await self._set_paused(_id(request), is_paused=True)

    async def resume(self, request: Request) -> Response:
        """Go on with the next future instant."""
        return await self._set_paused(_id(request), is_paused=False)

    async def _set_paused(self, schedule_id: str, *, is_paused: bool) -> Response:
        exists = await self._stores.schedules.set_schedule_paused(schedule_id, is_paused)
        return JsonResponse({}) if exists else _unknown(schedule_id)

    async def _fields(self, schedules: "list[StoredSchedule]") -> "list[dict[str, object]]":
        message_ids = [message_id for stored in schedules for message_id in stored.last_message_ids]
        states = await self._stores.schedules.read_states(message_ids) if message_ids else {}
        return [schedule_fields(stored, states) for stored in schedules]

    async def _array(
        self, first: "list[dict[str, object]]", slices: AsyncIterator["list[StoredSchedule]"]
    ) -> AsyncIterator[bytes]:
        """The JSON of all, of which only a slice is in memory at a time."""
        yield b"[" + _elements(first)
        is_empty = not first
        async for schedules in slices:
            fields = await self._fields(schedules)
            if fields:
                yield (b"" if is_empty else b",") + _elements(fields)
                is_empty = False
        yield b"]"


def _elements(values: list[dict[str, object]]) -> bytes:
    return msgspec.json.encode(values)[1:-1]


def _id(request: Request) -> str:
    return decode_segment(request.path_params["schedule_id"])


def _unknown(schedule_id: str) -> Never:
    raise NotFound(f"schedule {quoted(schedule_id)} not found")

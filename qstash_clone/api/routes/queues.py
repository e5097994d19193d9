"""Queues: create, change, show, pause, delete. See docs/protocol/queues.md."""

from typing import Never

from starlette.requests import Request
from starlette.responses import Response

from qstash_clone.api.hot_path import Stores
from qstash_clone.api.lane_fields import queue_fields
from qstash_clone.api.requests import decode_segment, read_json_object
from qstash_clone.api.responses import JsonResponse
from qstash_clone.domain.lane_changes import parse_queue_change
from qstash_clone.domain.names import check_name
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import NotFound, QuotaExceeded
from qstash_clone.settings import Settings


class QueueRoutes:
    """`/v2/queues`."""

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self._stores = stores
        self._max_queues = settings.max_queues
        self._max_parallelism = settings.max_queue_parallelism

    async def list(self, request: Request) -> Response:
        """All, in the order of their creation."""
        return JsonResponse([queue_fields(queue) for queue in await self._stores.queues.list_queues()])

    async def put(self, request: Request) -> Response:
        """Create a queue, or change what the body names of one."""
        change = parse_queue_change(await read_json_object(request) or {}, self._max_parallelism)
        is_done = await self._stores.queues.put_queue(
            change.name, parallelism=change.parallelism, is_paused=change.is_paused, max_queues=self._max_queues
        )
        if not is_done:
            raise QuotaExceeded(
                f"queueName: {quoted(change.name)} would be one queue more than the maximum of {self._max_queues}"
            )
        return JsonResponse({})

    async def get(self, request: Request) -> Response:
        """One queue, and how many of its messages have not ended."""
        queue = await self._stores.queues.get_queue(_name(request))
        return JsonResponse(queue_fields(queue)) if queue is not None else _unknown(request)

    async def delete(self, request: Request) -> Response:
        """Forget a queue and cancel what waits there; it need not exist."""
        await self._stores.queues.delete_queue(_name(request))
        return JsonResponse({})

    async def pause(self, request: Request) -> Response:
        """Let none of its messages begin another attempt."""
        return await self._set_paused(request, is_paused=True)

    async def resume(self, request: Request) -> Response:
        """Go on where it stopped."""
        return await self._set_paused(request, is_paused=False)

    async def _set_paused(self, request: Request, *, is_paused: bool) -> Response:
        exists = await self._stores.queues.set_queue_paused(_name(request), is_paused)
        return JsonResponse({}) if exists else _unknown(request)


def _name(request: Request) -> str:
    return check_name("queueName", decode_segment(request.path_params["name"]))


def _unknown(request: Request) -> Never:
    raise NotFound(f"queue {quoted(_name(request))} not found")

"""One message: show it, cancel it. See docs/protocol/messages.md."""

from typing import Never

from starlette.requests import Request
from starlette.responses import Response

from qstash_clone.api.hot_path import Stores
from qstash_clone.api.requests import decode_segment
from qstash_clone.api.responses import JsonResponse, message_fields
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import NotFound
from qstash_clone.ids import MessageId, parse_message_id
from qstash_clone.storage.interface import CancelResult


class MessageRoutes:
    """`/v2/messages/{message_id}`."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def get(self, request: Request) -> Response:
        """The message, until a grace period after it ended."""
        message_id = _message_id(request)
        stored = await self._stores.admin.get_message(message_id)
        return JsonResponse(message_fields(stored)) if stored is not None else _unknown(request)

    async def cancel(self, request: Request) -> Response:
        """`{"cancelled": 1}`, or 0 if the cancellation of a running attempt had been requested before."""
        message_id = _message_id(request)
        result = await self._stores.admin.cancel(message_id)
        if result is CancelResult.NOT_FOUND:
            _unknown(request)
        return JsonResponse({"cancelled": 0 if result is CancelResult.ALREADY_REQUESTED else 1})


def _message_id(request: Request) -> MessageId:
    message_id = parse_message_id(decode_segment(request.path_params["message_id"]))
    return message_id if message_id is not None else _unknown(request)


def _unknown(request: Request) -> Never:
    raise NotFound(f"message {quoted(decode_segment(request.path_params['message_id']))} not found")

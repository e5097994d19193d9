"""What publishes are recognised as repeats by: look at a record, clear it. See docs/protocol/deduplication.md."""

from typing import Never

from starlette.requests import Request
from starlette.responses import Response

from qstash_clone.api.hot_path import Stores
from qstash_clone.api.requests import decode_segment
from qstash_clone.api.responses import JsonResponse, deduplication_fields
from qstash_clone.domain.deduplication import digest_of_id, digest_of_schedule
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import NotFound


class DeduplicationRoutes:
    """`/v2/deduplication/{id}`."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def get(self, request: Request) -> Response:
        """The message that repeats are answered with, or else the schedule, and until when."""
        deduplication_id = _id(request)
        of_messages, of_schedules = _digests(deduplication_id)
        record = await self._stores.admin.get_deduplication(of_messages)
        if record is None:
            record = await self._stores.admin.get_deduplication(of_schedules)
        return JsonResponse(deduplication_fields(deduplication_id, record)) if record is not None else _unknown(request)

    async def clear(self, request: Request) -> Response:
        """Let the next publish with this id be stored, and the next schedule."""
        cleared = [await self._stores.admin.clear_deduplication(digest) for digest in _digests(_id(request))]
        return JsonResponse({}) if any(cleared) else _unknown(request)


def _digests(deduplication_id: str) -> tuple[bytes, bytes]:
    """Of the messages with this id, and of the schedules."""
    digest = digest_of_id(deduplication_id)
    return digest, digest_of_schedule(digest)


def _id(request: Request) -> str:
    return decode_segment(request.path_params["deduplication_id"])


def _unknown(request: Request) -> Never:
    raise NotFound(f"deduplication id {quoted(_id(request))} not found")

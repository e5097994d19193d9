"""The log of what happened to messages, under its two paths. See docs/protocol/logs.md."""

from starlette.requests import Request
from starlette.responses import Response

from qstash_clone.api.hot_path import Stores
from qstash_clone.api.requests import parameters_of
from qstash_clone.api.responses import JsonResponse, log_page_fields
from qstash_clone.domain import filter_parameters
from qstash_clone.domain.filter_parameters import FilterRules, parse_filter


class LogRoutes:
    """`/v2/events` and `/v2/logs`."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def events(self, request: Request) -> Response:
        """As the SDKs ask."""
        return await self._page(request, "events", filter_parameters.EVENTS)

    async def logs(self, request: Request) -> Response:
        """As the documentation says."""
        return await self._page(request, "logs", filter_parameters.LOGS)

    async def _page(self, request: Request, key: str, rules: FilterRules) -> Response:
        wanted = parse_filter(parameters_of(request), rules)
        page = await self._stores.admin.read_log(
            wanted.selection,
            cursor=wanted.cursor,
            count=wanted.count or rules.max_count,
            newest_first=wanted.newest_first,
        )
        return JsonResponse(log_page_fields(key, page, wanted.trim_body_bytes))

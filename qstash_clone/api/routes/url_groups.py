"""URL groups, `topics` on the wire: show, fill, empty, delete, default headers. See docs/protocol/url-groups.md."""

from typing import Never

from starlette.requests import Request
from starlette.responses import Response

from qstash_clone.api.hot_path import Stores, check_callbacks, egress_of, limits_of
from qstash_clone.api.requests import decode_segment, read_json_object
from qstash_clone.api.responses import JsonResponse, url_group_fields
from qstash_clone.domain.names import check_name, is_name
from qstash_clone.domain.quoting import quoted
from qstash_clone.domain.url_group_changes import parse_default_headers, parse_endpoints, parse_removals
from qstash_clone.domain.url_groups import UrlGroup, add_endpoints, remove_endpoints, replace_headers
from qstash_clone.errors import NotFound
from qstash_clone.settings import Settings


class UrlGroupRoutes:
    """`/v2/topics`."""

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self._stores = stores
        self._egress = egress_of(settings)
        self._limits = limits_of(settings)
        self._max_endpoints = settings.max_group_endpoints
        self._max_headers = settings.max_headers
        self._max_header_bytes = settings.max_header_bytes

    async def list(self, request: Request) -> Response:
        """All, in the order of their creation."""
        return JsonResponse([url_group_fields(group) for group in await self._stores.url_groups.list_url_groups()])

    async def get(self, request: Request) -> Response:
        """One group."""
        name = _name(request)
        group = await self._stores.url_groups.get_url_group(name)
        return JsonResponse(url_group_fields(group)) if group is not None else _unknown(name)

    async def add_endpoints(self, request: Request) -> Response:
        """Add endpoints to a group, which is made if there is none, or update those that it has; all or none."""
        name = check_name("topic", _name(request))
        endpoints = parse_endpoints(await read_json_object(request) or {}, self._egress)

        def change(group: UrlGroup | None, now_ms: int) -> UrlGroup:
            return add_endpoints(name, group, endpoints, now_ms, max_endpoints=self._max_endpoints)

        await self._stores.url_groups.change_url_group(name, change)
        return JsonResponse({})

    async def remove_endpoints(self, request: Request) -> Response:
        """Remove endpoints; without any left, the group is deleted."""
        name = _name(request)
        patterns = parse_removals(await read_json_object(request) or {})

        def change(group: UrlGroup | None, now_ms: int) -> UrlGroup | None:
            return remove_endpoints(group, patterns, now_ms) if group is not None else _unknown(name)

        await self._stores.url_groups.change_url_group(name, change)
        return JsonResponse({})

    async def replace_headers(self, request: Request) -> Response:
        """Set what publishes to a group have by default."""
        name = _name(request)
        headers, options = parse_default_headers(
            await read_json_object(request) or {},
            self._limits,
            max_headers=self._max_headers,
            max_bytes=self._max_header_bytes,
        )
        check_callbacks(self._egress, options.callback, options.failure_callback)

        def change(group: UrlGroup | None, now_ms: int) -> UrlGroup:
            return replace_headers(group, headers, now_ms) if group is not None else _unknown(name)

        await self._stores.url_groups.change_url_group(name, change)
        return JsonResponse({})

    async def delete(self, request: Request) -> Response:
        """Forget a group; it need not exist. Its messages are delivered all the same."""
        await self._stores.url_groups.change_url_group(_name(request), lambda group, now_ms: None)
        return JsonResponse({})


def _name(request: Request) -> str:
    return decode_segment(request.path_params["name"])


def _unknown(name: str) -> Never:
    raise NotFound(f"topic {name if is_name(name) else quoted(name)} not found")

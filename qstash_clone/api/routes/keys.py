"""The signing keys: show them, rotate them. See docs/protocol/keys.md."""

from starlette.requests import Request
from starlette.responses import Response

from qstash_clone.api.hot_path import Stores
from qstash_clone.api.responses import JsonResponse, signing_keys_fields


class KeyRoutes:
    """`/v2/keys`."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def get(self, request: Request) -> Response:
        """The current key, and the one after it."""
        return JsonResponse(signing_keys_fields(await self._stores.admin.get_signing_keys()))

    async def rotate(self, request: Request) -> Response:
        """Make the next key the current one and draw a new next key."""
        return JsonResponse(signing_keys_fields(await self._stores.admin.rotate_signing_keys()))

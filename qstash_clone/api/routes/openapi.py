"""The description of the API, for generators and tools. See docs/reference/api.md."""

from collections.abc import Collection, Sequence
from functools import cached_property

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from qstash_clone.api.openapi.document import build_document
from qstash_clone.api.responses import JSON
from qstash_clone.api.routing import Endpoint, Row


class OpenApiRoutes:
    """`/openapi.json`: it tells what the source code tells, and needs no credential."""

    def __init__(self, rows: Sequence[Row], refusals: Collection[Endpoint]) -> None:
        self._rows = rows
        self._refusals = refusals

    async def document(self, request: Request) -> Response:
        """What this process serves, in OpenAPI 3.1."""
        return Response(self._body, media_type=JSON.decode())

    @cached_property
    def _body(self) -> bytes:
        """Written once, when somebody asks first: most processes are never asked."""
        return msgspec.json.encode(build_document(self._rows, self._refusals))

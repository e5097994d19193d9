"""As much of FastAPI as the guide to it uses, on the Starlette that FastAPI is built on.

Requests, URLs and errors are the same classes there. FastAPI itself would bring a handful of packages for one page.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeAlias, get_origin, get_type_hints

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

__all__ = ["Depends", "FastAPI", "HTTPException", "Request"]

Handler: TypeAlias = Callable[..., Awaitable[Any]]


def Depends(dependency: Handler) -> Handler:  # noqa: N802
    """What `Annotated` says about a parameter: it is what this returns for the request."""
    return dependency


class FastAPI(Starlette):
    """Fills the parameters of a handler with the request, what they depend on, or the parsed body."""

    def post(self, path: str) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            hints = get_type_hints(handler, include_extras=True)
            hints.pop("return")

            async def endpoint(request: Request) -> Response:
                return JSONResponse(
                    await handler(**{name: await _value(hint, request) for name, hint in hints.items()})
                )

            self.router.routes.append(Route(path, endpoint, name=handler.__name__, methods=["POST"]))
            return handler

        return register


async def _value(hint: Any, request: Request) -> Any:
    if hint is Request:
        return request
    return await hint.__metadata__[0](request) if get_origin(hint) is Annotated else await request.json()

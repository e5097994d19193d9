"""Matches a raw request path against the route table, fixed segments in any case, nothing decoded or redirected."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Scope

from qstash_clone.api.errors import WrongMethod
from qstash_clone.errors import NotFound

Endpoint = Callable[[Request], Awaitable[Response]]


class Row(NamedTuple):
    """One line of the route table."""

    methods: str
    """Separated by blanks; `GET` includes `HEAD`."""
    path: str
    """`{name}` takes one raw segment, `{name:path}` the rest."""
    endpoint: Endpoint
    label: str
    """Of the metrics: one of `observability.ROUTES`."""


class Routes:
    """Finds the row of a request; Starlette compiles the paths and calls the endpoints."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._routes: list[tuple[Route, str]] = []
        for row in rows:
            route = Route(row.path, row.endpoint, methods=row.methods.split())
            route.path_regex = re.compile(route.path_regex.pattern, re.IGNORECASE | re.DOTALL)
            self._routes.append((route, row.label))

    def find(self, scope: Scope) -> tuple[ASGIApp, str]:
        """The endpoint and its label; fills the scope's path parameters, still undecoded.

        One slash at the end of what is read does no harm, so where no row has it, it is passed over. Raises `NotFound`,
        or `WrongMethod` if the path has rows with other methods only.
        """
        found = self._match(scope)
        if isinstance(found, tuple):
            return found
        path: str = scope["path"]
        if scope["method"] in ("GET", "HEAD") and path.endswith("/") and not path.endswith("//"):
            scope["path"] = path[:-1]
            without_slash = self._match(scope)
            if isinstance(without_slash, tuple):
                return without_slash
        if found:
            raise WrongMethod(scope["method"], sorted(found))
        raise NotFound(f"no such path: {path[:100]}")

    def _match(self, scope: Scope) -> tuple[ASGIApp, str] | set[str]:
        """The endpoint and its label, or else the methods that the path has."""
        allowed: set[str] = set()
        for route, label in self._routes:
            match, child_scope = route.matches(scope)
            if match is Match.FULL:
                scope.update(child_scope)
                return route.app, label
            if match is Match.PARTIAL:
                allowed |= route.methods or set()
        return allowed

"""What only `dev` serves: the clock of messages, for tests that cannot wait. See docs/reference/api.md."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from qstash_clone.api.hot_path import Stores
from qstash_clone.api.requests import read_json_object
from qstash_clone.api.responses import JsonResponse
from qstash_clone.domain.durations import parse_duration_ms
from qstash_clone.domain.quoting import quoted
from qstash_clone.domain.virtual_clock import Advance, ClockMove, Freeze, MoveTo, VirtualClock
from qstash_clone.errors import InvalidRequest


class DevRoutes:
    """`/dev`."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def clock(self, request: Request) -> Response:
        """The time that delays, retries, schedules and retention go by."""
        return JsonResponse(_fields(await self._stores.virtual_clock.read_clock()))

    async def move_clock(self, request: Request) -> Response:
        """Let time pass, or stand still; answers once it does."""
        move = _parse(await read_json_object(request) or {})
        return JsonResponse(_fields(await self._stores.virtual_clock.move_clock(move)))


def _parse(body: dict[str, object]) -> ClockMove:
    if len(body) != 1:
        raise InvalidRequest("give exactly one of advance, to and freeze")
    [(name, value)] = body.items()
    match name, value:
        case "advance", str():
            try:
                return Advance(parse_duration_ms(value))
            except ValueError as error:
                raise InvalidRequest(f"advance: invalid duration {quoted(value)}, {error}") from None
        case "advance", int() if not isinstance(value, bool) and value >= 0:
            return Advance(value)
        case "to", int() if not isinstance(value, bool):
            return MoveTo(value)
        case "freeze", bool():
            return Freeze(value)
        case "advance", _:
            raise InvalidRequest(f'advance: invalid value {_shown(value)}, use "7d", "1h30m" or milliseconds')
        case "to", _:
            raise InvalidRequest(f"to: invalid value {_shown(value)}, use milliseconds of unix time")
        case "freeze", _:
            raise InvalidRequest(f"freeze: invalid value {_shown(value)}, use true or false")
        case _:
            raise InvalidRequest(f"{quoted(name)} is not a move of the clock, use advance, to or freeze")


def _shown(value: object) -> str:
    return quoted(msgspec.json.encode(value).decode())


def _fields(clock: VirtualClock) -> dict[str, Any]:
    return {"now": clock.now_ms, "offset": clock.ahead_ms, "frozen": clock.frozen_ms is not None}

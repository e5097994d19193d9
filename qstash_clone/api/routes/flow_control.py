"""Flow-control keys: show, pause, pin, reset; and the attempts of all together. See docs/protocol/flow-control.md."""

from starlette.requests import Request
from starlette.responses import Response

from qstash_clone.api.hot_path import Stores
from qstash_clone.api.lane_fields import flow_control_fields
from qstash_clone.api.requests import decode_segment, parameters_of
from qstash_clone.api.responses import JsonResponse
from qstash_clone.domain.flow_control import check_flow_control_key
from qstash_clone.domain.lane_changes import parse_pin, parse_search, parse_unpin
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import InvalidRequest, NotFound
from qstash_clone.settings import Settings


class FlowControlRoutes:
    """`/v2/flowControl` and `/v2/globalParallelism`."""

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self._stores = stores
        self._global_parallelism = settings.global_parallelism

    async def list(self, request: Request) -> Response:
        """Those whose key contains `search`, in the order of their keys."""
        found = await self._stores.flow_controls.list_flow_control_keys(parse_search(parameters_of(request)))
        return JsonResponse([flow_control_fields(key) for key in found])

    async def get(self, request: Request) -> Response:
        """One key: its limits, and what they hold at the moment."""
        name = decode_segment(request.path_params["key"])
        key = await self._stores.flow_controls.get_flow_control_key(name)
        if key is None:
            raise NotFound(f"flow-control key {quoted(name)} not found")
        return JsonResponse(flow_control_fields(key))

    async def pause(self, request: Request) -> Response:
        """Let no attempt with this key begin; a new key is made."""
        await self._stores.flow_controls.set_flow_control_paused(_key(request), is_paused=True)
        return JsonResponse({})

    async def resume(self, request: Request) -> Response:
        """Go on under the key's limits."""
        await self._stores.flow_controls.set_flow_control_paused(_key(request), is_paused=False)
        return JsonResponse({})

    async def pin(self, request: Request) -> Response:
        """Fix limits, so that messages do not change them any more; a new key is made."""
        pin = parse_pin(parameters_of(request))
        await self._stores.flow_controls.pin_flow_control(
            _key(request), parallelism=pin.parallelism, rate=pin.rate, period_ms=pin.period_ms
        )
        return JsonResponse({})

    async def unpin(self, request: Request) -> Response:
        """Let messages change limits again; until then they stay as they are."""
        unpin = parse_unpin(parameters_of(request))
        await self._stores.flow_controls.unpin_flow_control(
            _key(request), parallelism=unpin.parallelism, rate=unpin.rate
        )
        return JsonResponse({})

    async def reset_rate(self, request: Request) -> Response:
        """Begin a new window with a count of 0."""
        await self._stores.flow_controls.reset_flow_control(_key(request), parallelism=False)
        return JsonResponse({})

    async def reset(self, request: Request) -> Response:
        """As `reset_rate`, and count the attempts under way no longer."""
        await self._stores.flow_controls.reset_flow_control(_key(request), parallelism=True)
        return JsonResponse({})

    async def global_parallelism(self, request: Request) -> Response:
        """Attempts under way, and how many there may be: as set, or else as the workers can hold."""
        stats = await self._stores.admin.stats()
        maximum = self._global_parallelism or stats.capacity
        return JsonResponse({"parallelismMax": maximum, "parallelismCount": stats.in_flight})


async def missing_key(request: Request) -> Response:
    """A path whose key is empty must not mean all of them."""
    raise InvalidRequest(f"{request.method} {str(request.scope['path'])[:100]}: the flow-control key is empty")


def _key(request: Request) -> str:
    return check_flow_control_key("flowControlKey", decode_segment(request.path_params["key"]))

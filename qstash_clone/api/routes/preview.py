"""What would happen, without doing it. See docs/protocol/explain.md and docs/protocol/cron.md."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from qstash_clone.api.hot_path import Stores
from qstash_clone.api.requests import read_json_object
from qstash_clone.api.responses import JsonResponse
from qstash_clone.domain.cron import Cron, parse_cron
from qstash_clone.domain.header_values import parse_retry_delay
from qstash_clone.domain.outcome import BackoffPolicy
from qstash_clone.domain.preview import PlannedRetry, next_firings, next_retry_times
from qstash_clone.domain.quoting import quoted
from qstash_clone.domain.retry_expression import parse
from qstash_clone.domain.time_zones import LAST_MS, local_text
from qstash_clone.errors import InvalidRequest
from qstash_clone.settings import Settings

MAX_COUNT = 1000
MAX_FIRINGS = 100
"""A rare expression takes up to a millisecond for each, and nothing else is served meanwhile."""
_DEFAULT_FIRINGS = 5


class PreviewRoutes:
    """`/v2/preview`."""

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self._policy = BackoffPolicy(
            coefficient=settings.retry_backoff_coefficient, cap_ms=settings.retry_backoff_cap_ms
        )
        self._default_count = settings.default_retries
        self._stores = stores

    async def retries(self, request: Request) -> Response:
        """When the retries of a message would be, if its first attempt failed now and all others at once."""
        body = await read_json_object(request) or {}
        expression, count = _parse(body, self._default_count)
        parsed = None if expression is None else parse(parse_retry_delay("expression", expression))
        now_ms = await self._now_ms()
        retries = [_fields(retry, now_ms) for retry in next_retry_times(parsed, count, self._policy)]
        fields: dict[str, Any] = {"now": now_ms, "retries": retries}
        return JsonResponse(fields if expression is None else {"expression": expression, **fields})

    async def cron(self, request: Request) -> Response:
        """When a schedule with this expression would fire."""
        body = await read_json_object(request) or {}
        now_ms = await self._now_ms()
        cron, count, after_ms = _parse_firings(body, now_ms)
        firings = [
            {"time": time_ms, "local": local_text(cron.zone, time_ms)}
            for time_ms in next_firings(cron, after_ms, count)
        ]
        return JsonResponse({"cron": cron.expression, "zone": cron.zone, "now": now_ms, "firings": firings})

    async def _now_ms(self) -> int:
        """By the clock that retries and schedules go by."""
        return (await self._stores.virtual_clock.read_clock()).now_ms


def _parse(body: dict[str, object], default_count: int) -> tuple[str | None, int]:
    _check_fields(body, "expression", "count")
    expression = body.get("expression")
    if not isinstance(expression, str | None):
        raise InvalidRequest("expression: give a string, or null for the default backoff")
    return expression, _integer(body, "count", min(default_count, MAX_COUNT), 1, MAX_COUNT)


def _parse_firings(body: dict[str, object], now_ms: int) -> tuple[Cron, int, int]:
    _check_fields(body, "cron", "count", "after")
    text = body.get("cron")
    if not isinstance(text, str):
        raise InvalidRequest("cron: give a cron expression as a string")
    count = _integer(body, "count", _DEFAULT_FIRINGS, 1, MAX_FIRINGS)
    return parse_cron("cron", text), count, _integer(body, "after", now_ms, 0, LAST_MS)


def _check_fields(body: dict[str, object], *names: str) -> None:
    unknown = next((name for name in body if name not in names), None)
    if unknown is not None:
        usage = f"{', '.join(names[:-1])} and {names[-1]}"
        raise InvalidRequest(f"{quoted(unknown)} is not a field of a preview, use {usage}")


def _integer(body: dict[str, object], name: str, default: int, least: int, greatest: int) -> int:
    number = body.get(name)
    if number is None:
        return default
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= greatest:
        shown = quoted(msgspec.json.encode(number).decode())
        raise InvalidRequest(f"{name}: invalid number {shown}, use an integer from {least} to {greatest}")
    return number


def _fields(retry: PlannedRetry, now_ms: int) -> dict[str, Any]:
    return {
        "retry": retry.retry,
        "delay": retry.delay_ms,
        "time": now_ms + retry.after_ms,
        "isDefault": retry.by_default,
    }

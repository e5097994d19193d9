"""What would happen, without doing it. See docs/protocol/retries.md."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from qstash_clone.api.requests import read_json_object
from qstash_clone.api.responses import JsonResponse
from qstash_clone.clock import Clock
from qstash_clone.domain.header_values import parse_retry_delay
from qstash_clone.domain.outcome import BackoffPolicy
from qstash_clone.domain.preview import PlannedRetry, next_retry_times
from qstash_clone.domain.quoting import quoted
from qstash_clone.domain.retry_expression import parse
from qstash_clone.errors import InvalidRequest
from qstash_clone.settings import Settings

MAX_COUNT = 1000


class PreviewRoutes:
    """`/v2/preview`."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._policy = BackoffPolicy(
            coefficient=settings.retry_backoff_coefficient, cap_ms=settings.retry_backoff_cap_ms
        )
        self._default_count = settings.default_retries
        self._clock = clock

    async def retries(self, request: Request) -> Response:
        """When the retries of a message would be, if its first attempt failed now and all others at once."""
        body = await read_json_object(request) or {}
        expression, count = _parse(body, self._default_count)
        parsed = None if expression is None else parse(parse_retry_delay("expression", expression))
        now_ms = self._clock.now_ms()
        retries = [_fields(retry, now_ms) for retry in next_retry_times(parsed, count, self._policy)]
        fields: dict[str, Any] = {"now": now_ms, "retries": retries}
        return JsonResponse(fields if expression is None else {"expression": expression, **fields})


def _parse(body: dict[str, object], default_count: int) -> tuple[str | None, int]:
    unknown = next((name for name in body if name not in ("expression", "count")), None)
    if unknown is not None:
        raise InvalidRequest(f"{quoted(unknown)} is not a field of a preview, use expression and count")
    expression, count = body.get("expression"), body.get("count")
    if not isinstance(expression, str | None):
        raise InvalidRequest("expression: give a string, or null for the default backoff")
    if count is None:
        return expression, min(default_count, MAX_COUNT)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_COUNT:
        shown = quoted(msgspec.json.encode(count).decode())
        raise InvalidRequest(f"count: invalid number {shown}, use an integer from 1 to {MAX_COUNT}")
    return expression, count


def _fields(retry: PlannedRetry, now_ms: int) -> dict[str, Any]:
    return {
        "retry": retry.retry,
        "delay": retry.delay_ms,
        "time": now_ms + retry.after_ms,
        "isDefault": retry.by_default,
    }

"""The api as one ASGI application: the route table, and what holds for every request."""

import asyncio
import logging
import time
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from qstash_clone.api.auth import Authenticator
from qstash_clone.api.batch import Batch
from qstash_clone.api.burst import BurstLimit
from qstash_clone.api.errors import ErrorAnswer, Header, WrongMethod, answer_of, error_body, stopping_answer
from qstash_clone.api.hot_path import Enqueue, Publish, Publisher, PublishingEndpoint, Stores
from qstash_clone.api.refusals import note_departure, note_refusal
from qstash_clone.api.requests import Head, RequestIds, publishing_target, read_head
from qstash_clone.api.responses import JSON
from qstash_clone.api.routes.deduplication import DeduplicationRoutes
from qstash_clone.api.routes.dev import DevRoutes
from qstash_clone.api.routes.dlq import DeadLetterRoutes
from qstash_clone.api.routes.flow_control import FlowControlRoutes, missing_key
from qstash_clone.api.routes.health import HealthRoutes
from qstash_clone.api.routes.keys import KeyRoutes
from qstash_clone.api.routes.logs import LogRoutes
from qstash_clone.api.routes.messages import MessageRoutes
from qstash_clone.api.routes.openapi import OpenApiRoutes
from qstash_clone.api.routes.preview import PreviewRoutes
from qstash_clone.api.routes.queues import QueueRoutes
from qstash_clone.api.routes.schedules import ScheduleRoutes
from qstash_clone.api.routes.url_groups import UrlGroupRoutes
from qstash_clone.api.routing import Endpoint, Routes, Row
from qstash_clone.api.topics.app import TopicApis
from qstash_clone.clock import Clock, SystemClock
from qstash_clone.errors import ClientGone, InvalidRequest
from qstash_clone.observability import (
    REQUEST_SERVED,
    REQUESTS,
    emit,
)
from qstash_clone.settings import Settings

_PROBES = frozenset({"livez", "readyz", "metrics", "openapi"})
"""Routes whose every request would be noise in the log."""


def route_table(settings: Settings, stores: Stores, clock: Clock, publisher: Publisher) -> list[Row]:
    """Everything the api serves besides publish, enqueue and batch, which `hot_path` and `batch` answer."""
    messages, dlq = MessageRoutes(settings, stores), DeadLetterRoutes(settings, stores, clock)
    logs, deduplication, preview = LogRoutes(stores), DeduplicationRoutes(stores), PreviewRoutes(settings, stores)
    keys, health = KeyRoutes(stores), HealthRoutes(settings, stores)
    queues, flow_control = QueueRoutes(settings, stores), FlowControlRoutes(settings, stores)
    schedules, url_groups = ScheduleRoutes(settings, stores, publisher), UrlGroupRoutes(settings, stores)
    dev = DevRoutes(stores)
    rows: list[Row] = []
    openapi = OpenApiRoutes(rows, REFUSALS)
    rows += [
        *(
            [
                Row("GET", "/dev/clock", dev.clock, "dev"),
                Row("POST", "/dev/clock", dev.move_clock, "dev"),
            ]
            if settings.dev
            else []
        ),
        Row("GET", "/livez", health.livez, "livez"),
        Row("GET", "/readyz", health.readyz, "readyz"),
        Row("GET", "/metrics", health.metrics, "metrics"),
        Row("GET", "/openapi.json", openapi.document, "openapi"),
        Row("GET", "/v2/messages", messages.list, "messages"),
        Row("GET", "/v2/messages/{message_id}", messages.get, "messages"),
        Row("GET", "/v2/messages/{message_id}/explain", messages.explain, "messages"),
        Row("DELETE", "/v2/messages/{message_id}", messages.cancel, "messages"),
        Row("DELETE", "/v2/messages/", missing_id, "messages"),
        Row("DELETE", "/v2/messages", messages.cancel_many, "messages"),
        Row("GET", "/v2/dlq", dlq.list, "dlq"),
        Row("DELETE", "/v2/dlq/", missing_id, "dlq"),
        Row("DELETE", "/v2/dlq", dlq.delete_many, "dlq"),
        Row("POST", "/v2/dlq/retry", dlq.retry_many, "dlq"),
        Row("POST", "/v2/dlq/retry/", missing_id, "dlq"),
        Row("POST", "/v2/dlq/retry/{dlq_id}", dlq.retry, "dlq"),
        Row("GET", "/v2/dlq/{dlq_id}", dlq.get, "dlq"),
        Row("DELETE", "/v2/dlq/{dlq_id}", dlq.delete, "dlq"),
        Row("GET", "/v2/events", logs.events, "log"),
        Row("GET", "/v2/logs", logs.logs, "log"),
        Row("GET DELETE", "/v2/deduplication/", missing_id, "deduplication"),
        Row("GET", "/v2/deduplication/{deduplication_id:path}", deduplication.get, "deduplication"),
        Row("DELETE", "/v2/deduplication/{deduplication_id:path}", deduplication.clear, "deduplication"),
        Row("POST", "/v2/preview/retries", preview.retries, "preview"),
        Row("POST", "/v2/preview/cron", preview.cron, "preview"),
        Row("GET", "/v2/keys", keys.get, "keys"),
        Row("POST", "/v2/keys/rotate", keys.rotate, "keys"),
        Row("POST", "/v2/rotate", keys.rotate, "keys"),
        Row("GET", "/v2/schedules", schedules.list, "schedules"),
        Row("DELETE", "/v2/schedules/", missing_id, "schedules"),
        Row("GET", "/v2/schedules/{schedule_id}", schedules.get, "schedules"),
        Row("DELETE", "/v2/schedules/{schedule_id}", schedules.delete, "schedules"),
        Row("PATCH PUT", "/v2/schedules/{schedule_id}/pause", schedules.pause, "schedules"),
        Row("PATCH PUT", "/v2/schedules/{schedule_id}/resume", schedules.resume, "schedules"),
        Row("POST", "/v2/schedules", schedules.post, "schedules"),
        Row("POST", "/v2/schedules/{rest:path}", schedules.post, "schedules"),
        Row("GET", "/v2/topics", url_groups.list, "url_groups"),
        Row("DELETE", "/v2/topics/", missing_id, "url_groups"),
        Row("GET", "/v2/topics/{name}", url_groups.get, "url_groups"),
        Row("PATCH", "/v2/topics/{name}", url_groups.replace_headers, "url_groups"),
        Row("DELETE", "/v2/topics/{name}", url_groups.delete, "url_groups"),
        Row("POST", "/v2/topics/{name}/endpoints", url_groups.add_endpoints, "url_groups"),
        Row("DELETE", "/v2/topics/{name}/endpoints", url_groups.remove_endpoints, "url_groups"),
        Row("GET", "/v2/queues", queues.list, "queues"),
        Row("POST", "/v2/queues", queues.put, "queues"),
        Row("POST", "/v2/queues/", queues.put, "queues"),
        Row("DELETE", "/v2/queues/", missing_id, "queues"),
        Row("GET", "/v2/queues/{name}", queues.get, "queues"),
        Row("DELETE", "/v2/queues/{name}", queues.delete, "queues"),
        Row("POST", "/v2/queues/{name}/pause", queues.pause, "queues"),
        Row("POST", "/v2/queues/{name}/resume", queues.resume, "queues"),
        Row("GET", "/v2/flowControl", flow_control.list, "flow_control"),
        Row("GET", "/v2/flowControl/", missing_key, "flow_control"),
        Row("POST", "/v2/flowControl//{action}", missing_key, "flow_control"),
        Row("GET", "/v2/flowControl/{key}", flow_control.get, "flow_control"),
        Row("POST", "/v2/flowControl/{key}/pause", flow_control.pause, "flow_control"),
        Row("POST", "/v2/flowControl/{key}/resume", flow_control.resume, "flow_control"),
        Row("POST", "/v2/flowControl/{key}/pin", flow_control.pin, "flow_control"),
        Row("POST", "/v2/flowControl/{key}/unpin", flow_control.unpin, "flow_control"),
        Row("POST", "/v2/flowControl/{key}/resetRate", flow_control.reset_rate, "flow_control"),
        Row("POST", "/v2/flowControl/{key}/reset", flow_control.reset, "flow_control"),
        Row("GET", "/v2/globalParallelism", flow_control.global_parallelism, "flow_control"),
    ]
    return rows


async def missing_id(request: Request) -> Response:
    """A collection's path with a trailing slash is a forgotten id, and must not mean everything."""
    raise InvalidRequest(f"{request.method} {request.scope['path']}: an id must follow the last slash")


REFUSALS: Final[frozenset[Endpoint]] = frozenset({missing_id, missing_key})
"""Endpoints that answer every request with 400."""


def create_app(settings: Settings, stores: Stores, clock: Clock | None = None) -> "Api":
    """The ASGI application of one api process."""
    return Api(settings, stores, SystemClock() if clock is None else clock)


class Api:
    """Gives every request an id, a credential check, an answer in JSON, a metric and a log event."""

    def __init__(self, settings: Settings, stores: Stores, clock: Clock) -> None:
        self._request_ids = RequestIds()
        self._authenticator = Authenticator(settings)
        self._is_dev = settings.dev
        self._burst = BurstLimit(settings.management_burst_limit, clock)
        publisher = Publisher(settings, stores, clock)
        self._publishing: dict[str, PublishingEndpoint] = {
            "publish": Publish(settings, publisher, self._authenticator),
            "enqueue": Enqueue(settings, publisher, self._authenticator),
            "batch": Batch(settings, publisher, self._authenticator),
        }
        self._topics = TopicApis(settings, stores, clock)
        self._routes = Routes(route_table(settings, stores, clock, publisher))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"The api serves HTTP, not {scope['type']}.")
        head = read_head(scope, self._request_ids)
        target = publishing_target(head.raw_path)
        if target is None:
            found = self._topics.find(head)
            if found is None:
                await self._serve_route(scope, head, receive, send)
            else:
                await self._topics.serve(found, head, receive, send)
            return
        label, raw_rest = target
        if head.method != "POST":
            await self._refuse_method(label, head, send)
            return
        try:
            await self._publishing[label](head, raw_rest, receive, send)
        except (Exception, asyncio.CancelledError) as error:
            await self._refuse(label, head, error, send)

    async def _serve_route(self, scope: Scope, head: Head, receive: Receive, send: Send) -> None:
        started_s = time.perf_counter()
        answer = _Answer(send, head.request_id)
        label = "unmatched"
        try:
            path = head.raw_path.decode("latin-1")
            if self._is_dev and path[:5].lower() == "/dev/":
                self._authenticator.check(head, publishes=False)
            elif path[:4].lower() == "/v2/":
                self._authenticator.check(head, publishes=False)
                answer.headers += self._burst.take()
            # Routing sees the raw path: decoded, `%2F` would be a slash.
            route_scope: dict[str, Any] = {**scope, "path": path, "root_path": "", "head": head}
            endpoint, label = self._routes.find(route_scope)
            await endpoint(route_scope, receive, answer.send)
        except (Exception, asyncio.CancelledError) as error:
            if answer.status:
                raise
            await self._refuse(label, head, error, send)
            return
        REQUESTS.inc(label, f"{answer.status // 100}xx")
        emit(
            REQUEST_SERVED,
            level=logging.DEBUG if label in _PROBES else logging.INFO,
            method=head.method,
            route=label,
            status=answer.status,
            duration_ms=round((time.perf_counter() - started_s) * 1000, 3),
            request_id=head.request_id.decode(),
        )

    async def _refuse_method(self, label: str, head: Head, send: Send) -> None:
        try:
            self._authenticator.check(head, publishes=True)
            raise WrongMethod(head.method, ["POST"])
        except Exception as error:
            await self._refuse(label, head, error, send)

    async def _refuse(self, label: str, head: Head, error: BaseException, send: Send) -> None:
        if isinstance(error, ClientGone):
            note_departure(label, head, error)
            return
        request_id = head.request_id.decode()
        answer = answer_of(error, request_id) if isinstance(error, Exception) else stopping_answer()
        note_refusal(label, head, answer.status, error, answer.text)
        await send_error(answer, head.request_id, send)


async def send_error(answer: ErrorAnswer, request_id: bytes, send: Send) -> None:
    """Answer with `{"error": ...}`."""
    body = error_body(answer.text)
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [
                (b"content-type", JSON),
                (b"content-length", b"%d" % len(body)),
                (b"x-request-id", request_id),
                *answer.headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


class _Answer:
    """Adds headers to an answer, the request's id for one, and remembers its status."""

    def __init__(self, send: Send, request_id: bytes) -> None:
        self._send = send
        self.headers: tuple[Header, ...] = ((b"x-request-id", request_id),)
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", []), *self.headers]
        await self._send(message)

"""Publish: a plain ASGI endpoint on the raw request target, from the head of a request to its durable answer."""

import time
from typing import Protocol

from starlette.types import Receive, Send

from qstash_clone.api.auth import Authenticator, CallerAddress
from qstash_clone.api.requests import Head, read_body
from qstash_clone.api.responses import JSON, duplicate_result_body, publish_result_body
from qstash_clone.clock import Clock
from qstash_clone.domain.destination import UrlDestination, parse_path_destination
from qstash_clone.domain.egress import EgressPolicy
from qstash_clone.domain.headers import parse_options
from qstash_clone.domain.limits import Limits
from qstash_clone.domain.message import CallbackSpec
from qstash_clone.domain.planning import plan_deduplication, plan_publish
from qstash_clone.ids import format_message_id
from qstash_clone.observability import (
    MESSAGE_DEDUPLICATED,
    MESSAGE_PUBLISHED,
    MESSAGES_DEDUPLICATED,
    MESSAGES_PUBLISHED,
    PUBLISH_DURATION,
    REQUESTS,
    emit,
)
from qstash_clone.settings import Settings
from qstash_clone.storage.interface import AdminStore, PublishStore

_CONTENT_TYPE = (b"content-type", JSON)


class Stores(Protocol):
    """The parts of the store that the api uses; each raises `StorageUnavailable` while there is none."""

    @property
    def publishing(self) -> PublishStore: ...

    @property
    def admin(self) -> AdminStore: ...


def limits_of(settings: Settings) -> Limits:
    """What publishers get by default, and the most they may ask for."""
    return Limits(
        default_retries=settings.default_retries,
        max_retries=settings.max_retries,
        default_timeout_ms=settings.default_timeout_ms,
        max_timeout_ms=settings.max_timeout_ms,
        max_delay_ms=settings.max_delay_ms,
        deduplication_window_ms=settings.deduplication_window_ms,
        content_hash_scope=settings.content_hash_scope,
        strict_deduplication_ids=settings.strict_deduplication_ids,
    )


def egress_of(settings: Settings) -> EgressPolicy:
    """Which addresses messages may be for."""
    return EgressPolicy(allow_private=settings.allow_private_destinations, allowed=settings.allowed_destinations)


def check_callbacks(egress: EgressPolicy, callback: CallbackSpec | None, failure_callback: CallbackSpec | None) -> None:
    """Raise `InvalidRequest` for a callback to an address that may not be reached."""
    if callback is not None:
        egress.check_literal(callback.url, "callback url")
    if failure_callback is not None:
        egress.check_literal(failure_callback.url, "failure callback url")


class Publish:
    """Answers `POST /v2/publish/<destination>`; see docs/protocol/messages.md.

    Nothing is stored unless everything before the store's call succeeded, and nothing is answered before that call
    has returned. Raises what `api.errors` turns into an answer.
    """

    def __init__(self, settings: Settings, stores: Stores, authenticator: Authenticator, clock: Clock) -> None:
        self._stores = stores
        self._authenticator = authenticator
        self._clock = clock
        self._caller = CallerAddress(settings.trusted_proxies)
        self._egress = egress_of(settings)
        self._max_body_bytes = settings.max_message_bytes
        self._limits = limits_of(settings)

    async def __call__(self, head: Head, raw_destination: bytes, receive: Receive, send: Send) -> None:
        started_s = time.perf_counter()
        by_query = self._authenticator.check(head, publishes=True)
        parsed = parse_path_destination(raw_destination, head.query)
        destination = parsed.destination
        if isinstance(destination, UrlDestination) and destination.origin.address is not None:
            self._egress.check_literal(destination.url)
        options = parse_options(head.headers, parsed.config, self._limits, authorization_is_payload=by_query)
        if options.callback is not None or options.failure_callback is not None:
            check_callbacks(self._egress, options.callback, options.failure_callback)
        body = await read_body(receive, head, self._max_body_bytes)
        store = self._stores.publishing
        deduplication = None if options.deduplication is None else plan_deduplication(destination, options, body)
        message = plan_publish(
            store.new_message_id(deduplication),
            destination,
            options,
            body,
            self._caller.of(head),
            limits=self._limits,
            now_ms=self._clock.now_ms(),
            deduplication=deduplication,
        )
        published = await store.publish(message)

        message_id = format_message_id(published.id)
        if published.is_duplicate:
            answer = duplicate_result_body(message_id)
        else:
            answer = publish_result_body(message_id, message.message.url)
        await send(
            {
                "type": "http.response.start",
                "status": 202 if published.is_duplicate else 200,
                "headers": [
                    _CONTENT_TYPE,
                    (b"content-length", b"%d" % len(answer)),
                    (b"x-request-id", head.request_id),
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer})
        duration_s = time.perf_counter() - started_s
        (MESSAGES_DEDUPLICATED if published.is_duplicate else MESSAGES_PUBLISHED).inc()
        REQUESTS.inc("publish", "2xx")
        PUBLISH_DURATION.observe(duration_s)
        emit(
            MESSAGE_DEDUPLICATED if published.is_duplicate else MESSAGE_PUBLISHED,
            message_id=message_id,
            lane=message.lane,
            body_bytes=len(body),
            duration_ms=round(duration_s * 1000, 3),
            request_id=head.request_id.decode(),
        )

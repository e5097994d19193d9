"""The Kafka REST APIs: what holds for each of their requests, whichever row of the table it belongs to."""

import asyncio
import time
from typing import Protocol

from starlette.types import Receive, Send

from qstash_clone.api.burst import BurstLimit
from qstash_clone.api.refusals import note_departure, note_refusal
from qstash_clone.api.requests import Head
from qstash_clone.api.topics.calls import Answer, Call
from qstash_clone.api.topics.credentials import Credentials
from qstash_clone.api.topics.event_streams_v1 import EventStreamsV1
from qstash_clone.api.topics.event_streams_v2 import EventStreamsV2
from qstash_clone.api.topics.resource import TopicResource
from qstash_clone.api.topics.schema_registry import SchemaRegistryApi
from qstash_clone.api.topics.table import Found, TopicRow, TopicTable
from qstash_clone.api.topics.upstash import UpstashApi
from qstash_clone.api.topics.upstash_consume import UpstashConsume
from qstash_clone.api.topics.upstash_produce import UpstashProduce
from qstash_clone.clock import Clock
from qstash_clone.errors import ClientGone, UrlTooLong
from qstash_clone.observability import REQUEST_SERVED, REQUESTS, emit
from qstash_clone.settings import Settings
from qstash_clone.topics.interface import TopicStores
from qstash_clone.topics.producing import Producer
from qstash_clone.topics.schemas import SchemaRegistry, SchemaStores

_NO_STORE = (b"cache-control", b"no-store")


class KafkaStores(TopicStores, SchemaStores, Protocol):
    """What these APIs need of a store."""


def topic_table(settings: Settings, stores: KafkaStores) -> list[TopicRow]:
    """Everything that the Kafka REST APIs serve. What is unknown below the first segment of a row is answered in the
    shape of the first row that has it."""
    producer = Producer(
        stores,
        auto_create_topics=settings.auto_create_topics,
        default_partitions=settings.default_partitions,
        max_record_bytes=settings.max_record_bytes,
    )
    registry = SchemaRegistry(stores)
    credentials = Credentials(settings)
    upstash = UpstashApi(settings)
    return [
        *UpstashProduce(settings, stores, producer, upstash).rows(),
        *EventStreamsV2(credentials, producer, registry).rows(),
        *EventStreamsV1(credentials, producer, registry).rows(),
        *SchemaRegistryApi(credentials, registry).rows(),
        *UpstashConsume(settings, stores, upstash).rows(),
        *TopicResource(settings, stores, upstash.api).rows(),
    ]


class TopicApis:
    """Gives every request a credential check, an answer in JSON, a metric and a log event."""

    def __init__(self, settings: Settings, stores: KafkaStores, clock: Clock) -> None:
        self._table = TopicTable(topic_table(settings, stores))
        self._burst = BurstLimit(settings.topics_burst_limit, clock)

    def find(self, head: Head) -> Found | None:
        """Where a request belongs; None if to none of these APIs."""
        return self._table.find(head)

    async def serve(self, found: Found, head: Head, receive: Receive, send: Send) -> None:
        """Answer a request; the query is in no log, because it may hold a password."""
        started_s = time.perf_counter()
        try:
            grant = found.api.authenticate(head)
            self._burst.take()
            if found.row is None:
                raise found.refusal(head)
            if len(head.raw_path) + len(head.query) + bool(head.query) > found.api.max_url_bytes:
                raise UrlTooLong(f"the URL is longer than {found.api.max_url_bytes} bytes")
            answer = await found.row.handler(Call(head, found.segments, receive, grant))
        except (Exception, asyncio.CancelledError) as error:
            await self._refuse(found, head, error, send)
            return
        await _send(answer, head, send)
        REQUESTS.inc(found.label, "2xx")
        emit(
            REQUEST_SERVED,
            method=head.method,
            route=found.label,
            status=answer.status,
            duration_ms=round((time.perf_counter() - started_s) * 1000, 3),
            request_id=head.request_id.decode(),
        )

    async def _refuse(self, found: Found, head: Head, error: BaseException, send: Send) -> None:
        if isinstance(error, ClientGone):
            note_departure(found.label, head, error)
            return
        answer = found.api.error_shape(error, head)
        trace = {"trace": answer.trace} if answer.trace else {}
        note_refusal(found.label, head, answer.status, error, type(error).__name__, **trace)
        await _send(answer, head, send)


async def _send(answer: Answer, head: Head, send: Send) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [
                (b"content-type", answer.content_type),
                (b"content-length", b"%d" % len(answer.body)),
                (b"x-request-id", head.request_id),
                _NO_STORE,
                *answer.headers,
                *([(b"x-trace-id", answer.trace.encode())] if answer.trace else ()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": answer.body})

"""Publish and enqueue: plain ASGI endpoints on the raw request target, from the head to the durable answer."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import Protocol, assert_never

import msgspec
from starlette.types import Receive, Send

from qstash_clone.api.auth import Authenticator, CallerAddress
from qstash_clone.api.requests import Head, decode_segment, read_body
from qstash_clone.api.responses import (
    JSON,
    duplicate_fan_out_result_body,
    duplicate_result_body,
    fan_out_result_body,
    publish_result_body,
    schedule_result_body,
)
from qstash_clone.clock import Clock
from qstash_clone.domain.destination import (
    Destination,
    GroupDestination,
    LlmDestination,
    UrlDestination,
    parse_path_destination,
)
from qstash_clone.domain.egress import EgressPolicy
from qstash_clone.domain.header_values import HeaderLines
from qstash_clone.domain.headers import PublishOptions, parse_options
from qstash_clone.domain.lanes import is_queue_lane
from qstash_clone.domain.limits import Limits
from qstash_clone.domain.llm import LLM_API, check_llm_options, llm_destination, llm_upstream
from qstash_clone.domain.message import CallbackSpec, NewMessage
from qstash_clone.domain.names import check_name
from qstash_clone.domain.planning import plan_deduplication, plan_fan_out, plan_lanes, plan_publish, publishable
from qstash_clone.domain.schedules import plan_schedule, plan_schedule_deduplication
from qstash_clone.domain.url_groups import UrlGroup
from qstash_clone.ids import format_message_id, new_schedule_id
from qstash_clone.observability import (
    MESSAGE_DEDUPLICATED,
    MESSAGE_PUBLISHED,
    MESSAGES_DEDUPLICATED,
    MESSAGES_PUBLISHED,
    PUBLISH_DURATION,
    REQUESTS,
    SCHEDULE_CREATED,
    SCHEDULE_DEDUPLICATED,
    emit,
)
from qstash_clone.settings import Settings
from qstash_clone.storage.interface import AdminStore, Published, PublishStore
from qstash_clone.storage.resources import (
    FlowControlStore,
    QueueStore,
    ScheduleCreation,
    ScheduleStore,
    UrlGroupStore,
    VirtualClockStore,
)
from qstash_clone.topics.interface import GroupStore, TopicLog
from qstash_clone.topics.schemas import SchemaStore

_CONTENT_TYPE = (b"content-type", JSON)


class Stores(Protocol):
    """The parts of the store that the api uses; each raises `StorageUnavailable` while there is none."""

    @property
    def publishing(self) -> PublishStore: ...

    @property
    def admin(self) -> AdminStore: ...

    @property
    def queues(self) -> QueueStore: ...

    @property
    def flow_controls(self) -> FlowControlStore: ...

    @property
    def schedules(self) -> ScheduleStore: ...

    @property
    def url_groups(self) -> UrlGroupStore: ...

    @property
    def virtual_clock(self) -> VirtualClockStore: ...

    @property
    def topics(self) -> TopicLog: ...

    @property
    def groups(self) -> GroupStore: ...

    @property
    def schemas(self) -> SchemaStore: ...


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


class PublishingEndpoint(Protocol):
    """Answers `POST /v2/<publish, enqueue or batch>/<raw rest>`; raises what `api.errors` turns into an answer."""

    async def __call__(self, head: Head, raw_rest: bytes, receive: Receive, send: Send) -> None: ...


class Publisher:
    """From a destination with its options to stored messages: what publish, enqueue and batch have in common."""

    def __init__(self, settings: Settings, stores: Stores, clock: Clock) -> None:
        self._stores = stores
        self._clock = clock
        self._egress = egress_of(settings)
        self._llm = llm_upstream(settings.llm_base_url, key="")  # only a worker needs the key
        self.limits = limits_of(settings)

    async def check_destination(self, destination: Destination) -> UrlGroup | None:
        """The group that is published to, None for a URL and for the LLM upstream.

        Raises `InvalidRequest` for an address that may not be reached, for a group without endpoints and for an LLM
        upstream that is not configured, `NotFound` for a group that does not exist.
        """
        match destination:
            case UrlDestination():
                if destination.origin.address is not None:
                    self._egress.check_literal(destination.url)
                return None
            case GroupDestination(name=name):
                return publishable(name, await self._stores.url_groups.get_url_group(name))
            case LlmDestination():
                self._egress.check_literal(llm_destination(self._llm).url)
                return None
            case _:  # pragma: no cover
                assert_never(destination)

    def parse_options(
        self, headers: HeaderLines, query_config: HeaderLines, group: UrlGroup | None, *, authorization_is_payload: bool
    ) -> PublishOptions:
        """As `domain.headers.parse_options`; callbacks may be reached as well."""
        options = parse_options(
            headers,
            query_config,
            self.limits,
            authorization_is_payload=authorization_is_payload,
            group_headers=() if group is None else _lines_of(group),
        )
        if options.callback is not None or options.failure_callback is not None:
            check_callbacks(self._egress, options.callback, options.failure_callback)
        return options

    def plan(
        self,
        destination: Destination,
        group: UrlGroup | None,
        options: PublishOptions,
        body: bytes,
        caller_ip: str,
        queue: str | None,
    ) -> "Plan":
        """The messages to store, which have their ids already. Raises as `plan_publish`, and `InvalidRequest` for
        lanes that live apart and for a message to the LLM upstream without a callback."""
        store = self._stores.publishing
        deduplication = None if options.deduplication is None else plan_deduplication(destination, options, body, queue)
        lanes = plan_lanes(options, queue)
        destination, api = self._resolve_api(destination, options)
        if isinstance(destination, UrlDestination):
            message = plan_publish(
                store.new_message_id(deduplication, lanes),
                destination,
                options,
                body,
                caller_ip,
                limits=self.limits,
                now_ms=self._clock.now_ms(),
                deduplication=deduplication,
                queue=queue,
                api=api,
            )
            return Plan((message,), is_fan_out=False)
        assert group is not None
        messages = plan_fan_out(
            store.new_message_ids(len(group.endpoints), deduplication, lanes),
            group,
            options,
            body,
            caller_ip,
            limits=self.limits,
            now_ms=self._clock.now_ms(),
            deduplication=deduplication,
            queue=queue,
        )
        return Plan(messages, is_fan_out=True)

    def _resolve_api(
        self, destination: Destination, options: PublishOptions
    ) -> tuple[UrlDestination | GroupDestination, str | None]:
        """Where messages go that were published to an API, and which one that is. Raises `InvalidRequest` without an
        upstream or a callback."""
        if not isinstance(destination, LlmDestination):
            return destination, None
        check_llm_options(options)
        return llm_destination(self._llm), LLM_API

    def store(self, plan: "Plan") -> Awaitable[Published]:
        """Store the messages of one publish, all or none, unless they repeat an earlier one."""
        store = self._stores.publishing
        return store.fan_out(plan.messages) if plan.is_fan_out else store.publish(plan.messages[0])

    def store_in_order(self, plans: Sequence["Plan"]) -> "list[Awaitable[Published]]":
        """As `store` for each of these. No member of a queue overtakes an earlier one, and an earlier message makes a
        later one a repeat: what takes several steps waits until that is certain, and so do those behind it."""
        store = self._stores.publishing
        in_steps = {at for at, plan in enumerate(plans) if store.decides_elsewhere(plan.messages[0])}
        if not in_steps:
            return [self.store(plan) for plan in plans]
        outcomes: list[Awaitable[Published]] = []
        newest: dict[str | bytes, int] = {}
        for at, plan in enumerate(plans):
            marks = _marks(plan.messages[0])
            earlier = {newest[mark] for mark in marks if mark in newest}
            if at in in_steps or earlier & in_steps:
                in_steps.add(at)
                outcome = self._store_behind([outcomes[one] for one in earlier], plan)
            else:
                outcome = self.store(plan)
            outcomes.append(asyncio.ensure_future(outcome))
            newest |= dict.fromkeys(marks, at)
        return outcomes

    async def _store_behind(self, earlier: Sequence[Awaitable[Published]], plan: "Plan") -> Published:
        await asyncio.gather(*earlier, return_exceptions=True)
        return await self.store(plan)

    async def create_schedule(
        self,
        destination: Destination,
        group: UrlGroup | None,
        options: PublishOptions,
        body: bytes,
        caller_ip: str,
        queue: str | None,
        request_id: str,
    ) -> ScheduleCreation:
        """Store the schedule that the options ask for, unless this repeats an earlier request for one.

        Raises as `plan_schedule`, `QuotaExceeded` for one too many, and `InvalidRequest` for lanes that live apart and
        for a schedule to the LLM upstream without a callback.
        """
        deduplication = plan_schedule_deduplication(destination, options, body, queue)
        resolved, api = self._resolve_api(destination, options)
        schedule = plan_schedule(
            new_schedule_id(), resolved, options, body, caller_ip, group=group, queue=queue, api=api
        )
        creation = await self._stores.schedules.create_schedule(schedule, deduplication, is_paused=options.is_paused)
        emit(
            SCHEDULE_DEDUPLICATED if creation.is_duplicate else SCHEDULE_CREATED,
            schedule_id=creation.schedule_id,
            cron=schedule.cron,
            body_bytes=len(body),
            request_id=request_id,
        )
        return creation


def _marks(message: NewMessage) -> list[str | bytes]:
    """What two messages share that are to be stored one after the other: a queue, a deduplication id or content."""
    marks: list[str | bytes] = list(filter(is_queue_lane, message.lane.split(" ")))
    return marks if message.deduplication is None else [*marks, message.deduplication.digest]


class Plan(msgspec.Struct, frozen=True):
    """The messages of one publish."""

    messages: Sequence[NewMessage]
    is_fan_out: bool
    """To a URL group, which is answered with an array whatever their number is."""

    def answer(self, published: Published) -> bytes:
        """The result, in JSON."""
        if self.is_fan_out:
            return (
                duplicate_fan_out_result_body(published)
                if published.is_duplicate
                else fan_out_result_body(self.messages)
            )
        message_id = format_message_id(published.id)
        if published.is_duplicate:
            return duplicate_result_body(message_id)
        return publish_result_body(message_id, self.messages[0].message.url)


class Publish:
    """Answers `POST /v2/publish/<destination>`; see docs/protocol/messages.md.

    Nothing is stored unless everything before the store's call succeeded, and nothing is answered before that call
    has returned.
    """

    def __init__(self, settings: Settings, publisher: Publisher, authenticator: Authenticator) -> None:
        self._publisher = publisher
        self._authenticator = authenticator
        self._caller = CallerAddress(settings.trusted_proxies)
        self._max_body_bytes = settings.max_message_bytes

    async def __call__(self, head: Head, raw_rest: bytes, receive: Receive, send: Send) -> None:
        await self.publish("publish", head, raw_rest, None, receive, send)

    async def publish(
        self, label: str, head: Head, raw_destination: bytes, raw_queue: bytes | None, receive: Receive, send: Send
    ) -> None:
        """Publish to the destination, or enqueue in the queue of that name, which is percent-encoded."""
        started_s = time.perf_counter()
        by_query = self._authenticator.check(head, publishes=True)
        queue = None if raw_queue is None else check_name("queue", decode_segment(raw_queue.decode("latin-1")))
        parsed = parse_path_destination(raw_destination, head.query)
        destination, publisher = parsed.destination, self._publisher
        group = await publisher.check_destination(destination)
        options = publisher.parse_options(head.headers, parsed.config, group, authorization_is_payload=by_query)
        if options.cron is not None:
            # A schedule goes on without its publisher, and may replace that of another one.
            self._authenticator.check(head, publishes=False)
        body = await read_body(receive, head, self._max_body_bytes)
        if options.cron is not None:
            creation = await publisher.create_schedule(
                destination, group, options, body, self._caller.of(head), queue, head.request_id.decode()
            )
            answer = schedule_result_body(creation)
            await self._answer(head, answer, send, is_duplicate=creation.is_duplicate)
            if creation.is_duplicate:
                MESSAGES_DEDUPLICATED.inc()
            REQUESTS.inc(label, "2xx")
            PUBLISH_DURATION.observe(time.perf_counter() - started_s)
            return
        plan = publisher.plan(destination, group, options, body, self._caller.of(head), queue)
        published = await publisher.store(plan)

        await self._answer(head, plan.answer(published), send, is_duplicate=published.is_duplicate)
        duration_s = time.perf_counter() - started_s
        if published.is_duplicate:
            MESSAGES_DEDUPLICATED.inc()
        else:
            MESSAGES_PUBLISHED.inc(len(plan.messages))
        REQUESTS.inc(label, "2xx")
        PUBLISH_DURATION.observe(duration_s)
        emit(
            MESSAGE_DEDUPLICATED if published.is_duplicate else MESSAGE_PUBLISHED,
            message_id=format_message_id(published.id),
            lane=plan.messages[0].lane,
            messages=len(plan.messages),
            body_bytes=len(body),
            duration_ms=round(duration_s * 1000, 3),
            request_id=head.request_id.decode(),
        )

    async def _answer(self, head: Head, answer: bytes, send: Send, *, is_duplicate: bool) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 202 if is_duplicate else 200,
                "headers": [
                    _CONTENT_TYPE,
                    (b"content-length", b"%d" % len(answer)),
                    (b"x-request-id", head.request_id),
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer})


class Enqueue(Publish):
    """Answers `POST /v2/enqueue/<queue>/<destination>` as a publish is; see docs/protocol/publish.md."""

    async def __call__(self, head: Head, raw_rest: bytes, receive: Receive, send: Send) -> None:
        raw_queue, _, raw_destination = raw_rest.partition(b"/")
        # Where there is nothing at all, clients look for the words about the destination.
        await self.publish("enqueue", head, raw_destination, raw_queue if raw_rest else None, receive, send)


def _lines_of(group: UrlGroup) -> HeaderLines:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in group.headers]

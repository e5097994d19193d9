"""Batch: many publishes in one request, from its JSON array to one answer for each item."""

import asyncio
import time
from typing import Final

import msgspec
from starlette.types import Receive, Send

from qstash_clone.api.auth import Authenticator, CallerAddress
from qstash_clone.api.errors import error_body
from qstash_clone.api.hot_path import Plan, Publisher
from qstash_clone.api.requests import Head, read_body
from qstash_clone.api.responses import JSON, schedule_result_body
from qstash_clone.domain.batch import BatchItem, body_bytes, header_lines, holds_json, parse_batch
from qstash_clone.domain.destination import Destination, parse_batch_destination
from qstash_clone.domain.header_values import HeaderLines
from qstash_clone.domain.headers import PublishOptions
from qstash_clone.domain.names import check_name
from qstash_clone.domain.url_groups import UrlGroup
from qstash_clone.errors import CallerError
from qstash_clone.observability import (
    BATCH_PUBLISHED,
    MESSAGES_DEDUPLICATED,
    MESSAGES_PUBLISHED,
    PUBLISH_DURATION,
    REQUESTS,
    emit,
)
from qstash_clone.settings import Settings
from qstash_clone.storage.interface import Published

_TOGETHER: Final = 100
"""Publishes under way at once: as many as travel in one call of the store, so that others get their turn between."""
_BYTES_TOGETHER: Final = 4 * 1024 * 1024


class Batch:
    """Answers `POST /v2/batch`; see docs/protocol/batch.md.

    Bad items get an error in their place of the answer, while the others are stored. A store that fails ends the
    whole request: nobody could tell an answer with gaps from a complete one without looking at every element.
    """

    def __init__(self, settings: Settings, publisher: Publisher, authenticator: Authenticator) -> None:
        self._publisher = publisher
        self._authenticator = authenticator
        self._caller = CallerAddress(settings.trusted_proxies)
        self._max_bytes = settings.max_batch_bytes
        self._max_items = settings.max_batch_items
        self._item_limits = ItemLimits(
            headers=settings.max_headers,
            header_bytes=settings.max_header_bytes,
            body_bytes=settings.max_message_bytes,
        )

    async def __call__(self, head: Head, raw_rest: bytes, receive: Receive, send: Send) -> None:
        started_s = time.perf_counter()
        self._authenticator.check(head, publishes=True)
        body = await read_body(receive, head, self._max_bytes)
        run = _Run(self._publisher, self._authenticator, self._item_limits, head, self._caller.of(head))
        items = parse_batch(body, self._max_items)
        try:
            for item in items:
                await run.add(item)
            await run.flush()
        finally:
            MESSAGES_PUBLISHED.inc(run.stored)
            MESSAGES_DEDUPLICATED.inc(run.duplicates)
        answer = b"[" + b",".join(run.results) + b"]"
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", JSON),
                    (b"content-length", b"%d" % len(answer)),
                    (b"x-request-id", head.request_id),
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer})
        duration_s = time.perf_counter() - started_s
        REQUESTS.inc("batch", "2xx")
        PUBLISH_DURATION.observe(duration_s)
        emit(
            BATCH_PUBLISHED,
            items=len(items),
            messages=run.stored,
            schedules=run.schedules,
            duplicates=run.duplicates,
            refused=run.refused,
            body_bytes=len(body),
            duration_ms=round(duration_s * 1000, 3),
            request_id=head.request_id.decode(),
        )


class ItemLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a single publish is held to before it reaches its endpoint, held against each item."""

    headers: int
    header_bytes: int
    body_bytes: int


class _ParsedItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item, checked and complete."""

    destination: Destination
    group: UrlGroup | None
    options: PublishOptions
    body: bytes
    queue: str | None


class _Run:
    """Plans items in order and stores them in order, some at a time."""

    def __init__(
        self, publisher: Publisher, authenticator: Authenticator, limits: ItemLimits, head: Head, caller_ip: str
    ) -> None:
        self._publisher = publisher
        self._authenticator = authenticator
        self._limits = limits
        self._head = head
        self._caller_ip = caller_ip
        self._destinations: dict[str, tuple[Destination, UrlGroup | None] | CallerError] = {}
        self._last_lines: tuple[tuple[object, ...], HeaderLines] | None = None
        self._last_options: tuple[HeaderLines, UrlGroup | None, PublishOptions] | None = None
        self._plans: list[tuple[int, Plan]] = []
        """Not stored yet, with the places of their results."""
        self._planned_bytes = 0
        self.results: list[bytes] = []
        self.stored = 0
        self.schedules = 0
        self.duplicates = 0
        self.refused = 0

    async def add(self, item: "BatchItem | CallerError") -> None:
        """Plan one item, and store what was planned if it is enough. Raises as the store."""
        try:
            parsed = await self._parse(item)
            if parsed.options.cron is not None:
                self.results.append(await self._create_schedule(parsed))
                return
            plan = self._plan(parsed)
        except CallerError as error:
            self.refused += 1
            self.results.append(error_body(str(error)))
            return
        self._plans.append((len(self.results), plan))
        self.results.append(b"")
        self._planned_bytes += len(plan.messages[0].body)
        if len(self._plans) >= _TOGETHER or self._planned_bytes >= _BYTES_TOGETHER:
            await self.flush()

    async def flush(self) -> None:
        """Store what was planned, and fill in the results. Raises the first failure of the store once all ended."""
        plans, self._plans, self._planned_bytes = self._plans, [], 0
        stored = self._publisher.store_in_order([plan for _, plan in plans])
        outcomes = await asyncio.gather(*stored, return_exceptions=True)
        failure = None
        for (place, plan), outcome in zip(plans, outcomes, strict=True):
            if isinstance(outcome, Published):
                self.results[place] = plan.answer(outcome)
                if outcome.is_duplicate:
                    self.duplicates += 1
                else:
                    self.stored += len(plan.messages)
            elif isinstance(outcome, CallerError):
                self.refused += 1
                self.results[place] = error_body(str(outcome))
            elif failure is None:
                failure = outcome
        if failure is not None:
            raise failure

    async def _create_schedule(self, item: "_ParsedItem") -> bytes:
        """Store the schedule that an item asks for after all items before it, and return its result."""
        self._authenticator.check(self._head, publishes=False)
        await self.flush()
        creation = await self._publisher.create_schedule(
            item.destination,
            item.group,
            item.options,
            item.body,
            self._caller_ip,
            item.queue,
            self._head.request_id.decode(),
        )
        if creation.is_duplicate:
            self.duplicates += 1
        else:
            self.schedules += 1
        return schedule_result_body(creation)

    def _plan(self, item: "_ParsedItem") -> Plan:
        return self._publisher.plan(item.destination, item.group, item.options, item.body, self._caller_ip, item.queue)

    async def _parse(self, item: "BatchItem | CallerError") -> "_ParsedItem":
        if isinstance(item, CallerError):
            raise item
        destination, group = await self._destination(item.destination or "")
        queue = check_name("queue", item.queue) if item.queue else None
        options = self._options(self._lines(item), group)
        body = body_bytes(item, self._limits.body_bytes)
        return _ParsedItem(destination=destination, group=group, options=options, body=body, queue=queue)

    async def _destination(self, text: str) -> tuple[Destination, UrlGroup | None]:
        """Parsed and checked once for the whole batch, so that each URL group is read once."""
        found = self._destinations.get(text)
        if found is None:
            try:
                destination = parse_batch_destination(text)
                found = (destination, await self._publisher.check_destination(destination))
            except CallerError as error:
                found = error
            self._destinations[text] = found
        if isinstance(found, CallerError):
            raise found
        return found

    def _lines(self, item: BatchItem) -> HeaderLines:
        """Those of the item before, if it was given the same headers: most items of a batch look alike."""
        given = (item.headers, item.callback, holds_json(item))
        if self._last_lines is None or self._last_lines[0] != given:
            limits = self._limits
            self._last_lines = (
                given,
                header_lines(item, max_headers=limits.headers, max_bytes=limits.header_bytes),
            )
        return self._last_lines[1]

    def _options(self, lines: HeaderLines, group: UrlGroup | None) -> PublishOptions:
        """Those of the item before, if it had the same headers."""
        last = self._last_options
        if last is not None and last[0] == lines and last[1] is group:
            return last[2]
        options = self._publisher.parse_options(lines, (), group, authorization_is_payload=True)
        self._last_options = (lines, group, options)
        return options

"""The ways in which a message can be asked for, each with headers of its own: one means the same in all of them."""

import json
from enum import StrEnum
from typing import Any, assert_never

from tests.support.client import Client
from tests.support.dev_clock import DevClock
from tests.support.eventually import eventually
from tests.support.raw_http import Answer
from tests.support.receiver import Receiver

Lines = list[tuple[str, str]]


class Way(StrEnum):
    """The names are those of the columns in docs/reference/conformance.md."""

    PUBLISH = "publish"
    ENQUEUE = "enqueue"
    BATCH = "item of a batch"
    SCHEDULE = "schedule"
    RETRY = "retry of a dead letter"
    RETRY_MANY = "retry of many"


RETRIES = (Way.RETRY, Way.RETRY_MANY)
CREATING = (Way.PUBLISH, Way.ENQUEUE, Way.BATCH, Way.SCHEDULE)
"""Those that take headers about deduplication and schedules: a retry is neither a repeat nor a schedule."""


class Asking:
    """Asks for messages to paths of a receiver in one way, and takes back at the end what still waits."""

    def __init__(self, way: Way, client: Client, receiver: Receiver, clock: DevClock | None = None) -> None:
        self.way = way
        self.client = client
        self.name = f"asked-{receiver.port}"
        """For what a test needs a name for; that of the queue as well."""
        self.schedule: dict[str, Any] = {}
        """As it was shown before it fired, for that way."""
        self._receiver = receiver
        self._clock = clock

    async def send(self, path: str, headers: Lines, body: bytes = b"") -> str:
        """The id of a message to that path which the headers were given for; for a schedule, of its first firing.

        A retry is one of a message that had none of these headers, and failed at the same path with the same body.
        """
        if self.way in RETRIES:
            return await self._retried(path, headers, body)
        if self.way is not Way.SCHEDULE:
            return (await self.created(path, headers, body))["messageId"]
        result = await self.created(path, [("Upstash-Cron", "* * * * *"), *headers], body)
        return await self._fired(result["scheduleId"])

    async def created(self, path: str, headers: Lines, body: bytes = b"") -> dict[str, Any]:
        """The result of asking for something new, which must succeed."""
        answer = await self.ask(path, headers, body)
        assert answer.status in (200, 202), answer
        result = answer.json()[0] if self.way is Way.BATCH else answer.json()
        if self.way is not Way.BATCH:
            assert answer.status == (202 if result.get("deduplicated") else 200)
        return result

    async def ask(self, path: str, headers: Lines, body: bytes = b"") -> Answer:
        """Ask for something new."""
        url = self._receiver.url + path
        match self.way:
            case Way.PUBLISH:
                return await self.client.call("POST", f"/v2/publish/{url}", headers, body)
            case Way.ENQUEUE:
                return await self.client.call("POST", f"/v2/enqueue/{self.name}/{url}", headers, body)
            case Way.SCHEDULE:
                return await self.client.call("POST", f"/v2/schedules/{url}", headers, body)
            case Way.BATCH:
                items = [{"destination": url, "headers": dict(headers), "body": body.decode()}]
                return await self.client.call("POST", "/v2/batch", body=json.dumps(items).encode())
            case Way.RETRY | Way.RETRY_MANY:
                raise AssertionError(f"a {self.way} asks for nothing new")
            case _:
                assert_never(self.way)

    async def failed(self, path: str, body: bytes = b"") -> str:
        """The id of a dead letter of a message to that path."""
        self._receiver.respond(404, path=path)
        message_id = await self.client.publish(self._receiver.url + path, body, [("Upstash-Retries", "0")])

        async def dlq_id() -> str | None:
            letters = (await self.client.send("GET", f"/v2/dlq?messageId={message_id}"))["messages"]
            return letters[0]["dlqId"] if letters else None

        found = await eventually(dlq_id)
        assert found is not None
        return found

    async def retry(self, dlq_id: str, headers: Lines) -> Answer:
        """Retry a dead letter with other options, by its path or by a list of one in a body."""
        if self.way is Way.RETRY:
            return await self.client.call("POST", f"/v2/dlq/retry/{dlq_id}", headers)
        body = json.dumps({"dlqIds": [dlq_id]}).encode()
        return await self.client.call("POST", "/v2/dlq/retry", headers, body)

    async def entry(self, message_id: str) -> dict[str, Any]:
        """What the log says about the creation of a message: everything it was configured with."""
        [entry] = (await self.client.send("GET", f"/v2/events?messageId={message_id}&state=CREATED"))["events"]
        return entry

    async def clear(self) -> None:
        host = self._receiver.url.removeprefix("http://")
        await self.client.send("DELETE", f"/v2/messages?host={host}")
        await self.client.send("DELETE", f"/v2/queues/{self.name}")

    async def _retried(self, path: str, headers: Lines, body: bytes) -> str:
        answer = await self.retry(await self.failed(path, body), headers)
        assert answer.status == 201, answer
        result = answer.json()["responses"][0] if self.way is Way.RETRY_MANY else answer.json()
        return result["messageId"]

    async def _fired(self, schedule_id: str) -> str:
        assert self._clock is not None, "schedules need a clock that moves"
        target = f"/v2/schedules/{schedule_id}"
        self.schedule = await self.client.send("GET", target)
        await self._clock.to(self.schedule["nextScheduleTime"])

        async def published() -> list[str]:
            return list((await self.client.send("GET", target)).get("lastScheduleStates", {}))

        [message_id] = await eventually(published)
        await self.client.send("DELETE", target)
        return message_id

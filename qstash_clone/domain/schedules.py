"""Schedules: a recurring publish into its definition, and one due instant into the messages to store.

See docs/explanation/schedules.md.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, assert_never
from urllib.parse import unquote

import msgspec

from qstash_clone.domain.cron import Cron, parse_cron
from qstash_clone.domain.deduplication import digest_of_schedule
from qstash_clone.domain.destination import Destination, GroupDestination, UrlDestination
from qstash_clone.domain.headers import PublishOptions
from qstash_clone.domain.lanes import route_text
from qstash_clone.domain.message import Deduplication, Extras, Message, NewMessage
from qstash_clone.domain.names import is_name
from qstash_clone.domain.planning import message_of, plan_deduplication, plan_lanes
from qstash_clone.domain.url_groups import UrlGroup
from qstash_clone.domain.urls import origin_of
from qstash_clone.errors import InvalidRequest, NotFound
from qstash_clone.ids import MessageId, message_id_of

_CRON: Final = "Upstash-Cron"
_ACTIONS: Final = {b"pause": True, b"resume": False}


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A recurring publish as its publisher defined it; replaced as a whole, never changed."""

    id: str
    cron: str
    """Trimmed, otherwise as published."""
    message: Message
    """What each firing publishes; for a URL group without its URL, which is that of each endpoint."""
    body: bytes = b""
    delay_ms: int = 0
    """From the instant of a firing."""
    queue: str | None = None
    """Whose members the messages become."""
    has_timeout: bool = False
    """The time-out of the message is the publisher's; otherwise it is the default of the time of the creation."""

    @property
    def url_group(self) -> str | None:
        """The URL group it publishes to, whose endpoints are those at the time of a firing."""
        return None if self.message.extras is None else self.message.extras.url_group

    @property
    def destination(self) -> str:
        """As published: a URL, the name of a URL group, or that of an API."""
        api = None if self.message.extras is None else self.message.extras.api
        return f"api/{api}" if api else self.url_group or self.message.url

    @property
    def limited_lanes(self) -> tuple[str, ...]:
        """The lanes with limits that its messages, or their callbacks, will wait in: all live in one partition."""
        return plan_lanes(self.message.extras or Extras(), self.queue)


class StoredSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as the store holds it."""

    schedule: Schedule
    created_ms: int
    revision: int
    """Another one after every overwrite, pause and resume, and never one that the id had before."""
    is_paused: bool = False
    next_fire_ms: int | None = None
    """None while it is paused, and for a cron expression without a future instant."""
    last_fire_ms: int | None = None
    """The instant that fired last."""
    last_message_ids: tuple[MessageId, ...] = ()
    """What that firing published."""
    error: str | None = None
    """Why it published nothing."""


class StateChange(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule to be paused or resumed."""

    schedule_id: str
    is_paused: bool


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of a schedule that is due; applied only while it still has this revision and fire time."""

    stored: StoredSchedule
    instant_ms: int
    """The newest instant that is due."""
    next_fire_ms: int | None
    messages: tuple[NewMessage, ...] = ()
    is_too_late: bool = False
    """The instant is older than the service may make up for: it is passed over like those before it."""
    error: str | None = None

    @property
    def has_missed(self) -> bool:
        """Whether due instants are passed over."""
        return self.is_too_late or self.instant_ms != self.stored.next_fire_ms


def parse_state_change(rest: bytes) -> StateChange | None:
    """What the raw path of a POST says after its prefix, if it is exactly a name and `pause` or `resume`.

    Anything else is a destination: `https://example.com/pause` is one, and a name never has a slash or a colon.
    """
    raw_name, _, action = rest.partition(b"/")
    is_paused = _ACTIONS.get(action.lower())
    name = unquote(raw_name)
    if is_paused is None or not is_name(name):
        return None
    return StateChange(schedule_id=name, is_paused=is_paused)


def plan_schedule(
    schedule_id: str,
    destination: UrlDestination | GroupDestination,
    options: PublishOptions,
    body: bytes,
    caller_ip: str,
    *,
    group: UrlGroup | None = None,
    queue: str | None = None,
    api: str | None = None,
) -> Schedule:
    """The schedule that a publish with a cron expression asks for.

    `queue` is that of an enqueue, which wins over that of the options. `api` is that of a destination that was named by
    an API instead of a URL.

    `schedule_id` is for a publisher who names none. `group` is the URL group of that destination, None if there is
    none; it may be without endpoints, because those at the time of a firing count. Its default headers are part of
    `options` already: they act as if the publisher had sent them.

    Raises `InvalidRequest` for a missing cron expression or an absolute time, `NotFound` for a URL group that does not
    exist.
    """
    if options.cron is None:
        raise InvalidRequest(f"{_CRON}: missing, a schedule needs a cron expression")
    if options.not_before_ms is not None:
        raise InvalidRequest(f"Upstash-Not-Before: not possible together with {_CRON}, use Upstash-Delay")
    url = ""
    url_group = None
    match destination:
        case UrlDestination():
            url = destination.url
        case GroupDestination():
            if group is None:
                raise NotFound(f"topic {destination.name} not found")
            url_group = destination.name
        case _:  # pragma: no cover
            assert_never(destination)
    chosen_id = options.schedule_id or schedule_id
    extras = Extras(
        callback=options.callback,
        failure_callback=options.failure_callback,
        redaction=options.redaction,
        flow_control=options.flow_control,
        url_group=url_group,
        schedule_id=chosen_id,
        api=api,
    )
    return Schedule(
        id=chosen_id,
        cron=options.cron.expression,
        message=message_of(url, options, caller_ip, extras),
        body=body,
        delay_ms=options.delay_ms,
        queue=queue or options.queue,
        has_timeout=options.has_timeout,
    )


def plan_schedule_deduplication(
    destination: Destination, options: PublishOptions, body: bytes, queue: str | None = None
) -> Deduplication | None:
    """What repeats of the creation of a schedule will be recognised by, if they are to be; its messages never are."""
    deduplication = plan_deduplication(destination, options, body, queue)
    if deduplication is None:
        return None
    return Deduplication(digest=digest_of_schedule(deduplication.digest), window_ms=deduplication.window_ms)


def messages_of(
    schedule: Schedule, group: UrlGroup | None, instant_ms: int, ids: Sequence[MessageId]
) -> list[NewMessage]:
    """What one firing publishes: a message for the URL, or for each endpoint of the `group`; one id for each."""
    template = schedule.message
    if group is None:
        return [_message(schedule, template, instant_ms, message_id) for message_id in ids]
    extras = template.extras or Extras()
    return [
        _message(
            schedule,
            msgspec.structs.replace(
                template, url=endpoint.url, extras=msgspec.structs.replace(extras, endpoint_name=endpoint.name)
            ),
            instant_ms,
            message_id,
        )
        for endpoint, message_id in zip(group.endpoints, ids, strict=True)
    ]


def _message(schedule: Schedule, message: Message, instant_ms: int, message_id: MessageId) -> NewMessage:
    flow_control = None if message.extras is None else message.extras.flow_control
    return NewMessage(
        id=message_id,
        message=message,
        body=schedule.body,
        lane=route_text(origin_of(message.url), schedule.queue, None if flow_control is None else flow_control.key),
        not_before_ms=instant_ms + schedule.delay_ms,
    )


def firing_ids(
    schedule_id: str, revision: int, instant_ms: int, urls: Sequence[str], first_bucket: int, bucket_count: int
) -> list[MessageId]:
    """The ids of one firing's messages, one for each URL, in a range of buckets: whoever derives them gets the same
    ones, so a firing that is repeated stores nothing twice, also after its URL group has changed."""
    seen: Counter[str] = Counter()
    ids: list[MessageId] = []
    for url in urls:
        seed = f"{schedule_id}\n{revision}\n{instant_ms}\n{seen[url]}\n{url}"
        seen[url] += 1
        ids.append(message_id_of(sha256(seed.encode()).digest(), first_bucket, bucket_count))
    return ids


def plan_firing(
    stored: StoredSchedule,
    group: UrlGroup | None,
    *,
    now_ms: int,
    max_lateness_ms: int | None,
    new_ids: Callable[[StoredSchedule, int, Sequence[str]], Sequence[MessageId]],
) -> Firing:
    """What to do about a schedule whose next fire time has come.

    Of several due instants the newest fires, unless it is older than `max_lateness_ms`. `group` is the URL group it
    publishes to as it is now. `new_ids` derives the ids of an instant's messages from their URLs. A firing that has
    nothing to publish to says so in `error`. Raises `ValueError` or `InvalidRequest` for one that cannot be read.
    """
    due_ms = stored.next_fire_ms
    if due_ms is None:
        raise ValueError(f"the schedule {stored.schedule.id} has no next fire time")
    instant_ms, next_ms = _instants(parsed_cron(stored.schedule.cron), due_ms, now_ms)
    if max_lateness_ms is not None and now_ms - instant_ms > max_lateness_ms:
        return Firing(stored=stored, instant_ms=instant_ms, next_fire_ms=next_ms, is_too_late=True)
    error = _obstacle(stored.schedule, group)
    if error is not None:
        return Firing(stored=stored, instant_ms=instant_ms, next_fire_ms=next_ms, error=error)
    urls = [stored.schedule.message.url] if group is None else [endpoint.url for endpoint in group.endpoints]
    ids = new_ids(stored, instant_ms, urls)
    messages = messages_of(stored.schedule, group, instant_ms, ids)
    return Firing(stored=stored, instant_ms=instant_ms, next_fire_ms=next_ms, messages=tuple(messages))


def _instants(cron: Cron, due_ms: int, now_ms: int) -> tuple[int, int | None]:
    """The newest instant that is due, and the next one."""
    next_ms = cron.next_after(due_ms)
    if next_ms is not None and next_ms > now_ms:
        return due_ms, next_ms
    newest_ms = cron.latest_until(due_ms, now_ms)
    return due_ms if newest_ms is None else newest_ms, cron.next_after(now_ms)


def _obstacle(schedule: Schedule, group: UrlGroup | None) -> str | None:
    """Why a firing has nothing to publish to."""
    if schedule.url_group is None:
        return None
    if group is None:
        return f"topic {schedule.url_group} not found"
    return None if group.endpoints else f"topic {schedule.url_group} has no endpoints"


def parsed_cron(expression: str) -> Cron:
    """A stored expression, parsed. Raises `InvalidRequest` for one that is none."""
    return parse_cron(_CRON, expression)

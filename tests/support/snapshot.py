"""A look behind the store: everything one key namespace holds, and what about it contradicts the design."""

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

import redis

from qstash_clone.domain.lanes import parse_route
from qstash_clone.domain.message import State, StoredMessage
from qstash_clone.domain.schedules import StoredSchedule
from qstash_clone.errors import StorageError
from qstash_clone.ids import MessageId
from qstash_clone.storage.codec import decode_deduplication, decode_record
from qstash_clone.storage.interface import DeduplicationRecord
from qstash_clone.storage.keys import (
    CONSUMER_GROUP,
    PartitionKeys,
    schema_ids_key,
    schema_levels_key,
    schema_texts_key,
    store_key,
    subjects_key,
    topic_generation_key,
    topics_key,
    url_groups_key,
)
from qstash_clone.storage.schedule_codec import decode_schedule
from tests.support.topic_snapshot import GROUPS, PREFIXES, topic_problems

OWNED_FOR_EVER = frozenset(
    {
        "meta",
        "ready",
        "timers",
        "ring",
        "parked",
        "blocked",
        "windows",
        "queues",
        "flows",
        "schedules",
        "catalogue",
        "log",
        "dlq",
        "dedup",
        "workers",
        "capacity",
        GROUPS,
    }
)
"""Keys of a partition without a lifetime; docs/reference/redis-keys.md names who takes out what is put in."""

_BESIDE = (
    store_key,
    url_groups_key,
    topics_key,
    topic_generation_key,
    schema_texts_key,
    schema_ids_key,
    subjects_key,
    schema_levels_key,
)

LogEntry = tuple[str, bytes, bytes]
"""Letter, message id, details."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A message's record and the ms it has left (-1: for ever)."""

    stored: StoredMessage
    ttl_ms: int = field(compare=False)


@dataclass(slots=True, kw_only=True)
class Partition:
    """What one partition holds, decoded."""

    meta: dict[str, bytes] = field(default_factory=dict[str, bytes])
    entries: dict[bytes, bytes | None] = field(default_factory=dict[bytes, bytes | None])
    """The ready stream: entry id -> message id, None for a doorbell."""
    pending: dict[bytes, str] = field(default_factory=dict[bytes, str])
    """Entry id -> consumer."""
    timers: dict[bytes, int] = field(default_factory=dict[bytes, int])
    ring: list[str] = field(default_factory=list[str])
    parked: set[str] = field(default_factory=set[str])
    blocked: set[str] = field(default_factory=set[str])
    windows: dict[str, int] = field(default_factory=dict[str, int])
    queues: dict[str, int] = field(default_factory=dict[str, int])
    flows: dict[str, int] = field(default_factory=dict[str, int])
    lanes: dict[str, list[bytes]] = field(default_factory=dict[str, list[bytes]])
    returning: dict[str, list[bytes]] = field(default_factory=dict[str, list[bytes]])
    slots: dict[str, set[bytes]] = field(default_factory=dict[str, set[bytes]])
    in_flight: dict[str, set[bytes]] = field(default_factory=dict[str, set[bytes]])
    callbacks: dict[bytes, set[bytes]] = field(default_factory=dict[bytes, set[bytes]])
    limits: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    schedules: dict[str, int] = field(default_factory=dict[str, int])
    catalogue: dict[str, int] = field(default_factory=dict[str, int])
    schedule_records: dict[str, StoredSchedule | None] = field(default_factory=dict[str, StoredSchedule | None])
    """None stands for one that cannot be read."""
    admitted: dict[str, set[bytes]] = field(default_factory=dict[str, set[bytes]])
    records: dict[bytes, Record] = field(default_factory=dict[bytes, Record])
    log: list[LogEntry] = field(default_factory=list[LogEntry])
    dlq: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])
    deduplication: dict[bytes, DeduplicationRecord] = field(default_factory=dict[bytes, DeduplicationRecord])
    """By digest."""
    reservations: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    """Digest -> message id."""
    dedup: list[bytes] = field(default_factory=list[bytes])
    """The digests of the stream, in order."""
    workers: set[str] = field(default_factory=set[str])
    capacity: dict[str, int] = field(default_factory=dict[str, int])
    unknown: list[bytes] = field(default_factory=list[bytes])

    @property
    def finished_bytes(self) -> int:
        """The sum that is kept of what finished records count."""
        return int(self.meta.get("fb", 0))

    @property
    def bells(self) -> int:
        """Doorbells nobody has answered."""
        return sum(message_id is None for message_id in self.entries.values())

    def letters(self, message_id: MessageId) -> str:
        """The log of one message, as letters in order of writing."""
        return "".join(letter for letter, of, _ in self.log if of == message_id)


class Inspector:
    """Reads namespaces of one server."""

    def __init__(self, redis_url: str) -> None:
        self._client: Any = redis.Redis.from_url(redis_url)  # pyright: ignore[reportUnknownMemberType]

    def close(self) -> None:
        self._client.close()

    def all_keys(self, namespace: str) -> list[bytes]:
        """Every key of the namespace, sorted."""
        found: set[bytes] = set(self._client.scan_iter(match=f"{{{namespace}:*", count=10_000))
        return sorted(found)

    def clear(self, namespace: str) -> None:
        """Delete the namespace: what a test leaves behind makes the look-ups of the next ones slower."""
        if keys := self.all_keys(namespace):
            self._client.delete(*keys)

    def read(self, namespace: str, partition: int = 0, partitions: int = 1) -> Partition:
        """One partition. Call it between scripts, not during one: it takes several round trips."""
        keys = PartitionKeys(namespace, partition, partitions)
        found = Partition()
        own = [key for key in self.all_keys(namespace) if key.startswith(keys.prefix)]
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.meta)
            pipe.xrange(keys.ready)
            pipe.zrange(keys.timers, 0, -1, withscores=True)
            pipe.lrange(keys.ring, 0, -1)
            pipe.smembers(keys.parked)
            pipe.smembers(keys.blocked)
            pipe.zrange(keys.windows, 0, -1, withscores=True)
            pipe.zrange(keys.queues, 0, -1, withscores=True)
            pipe.zrange(keys.flows, 0, -1, withscores=True)
            pipe.zrange(keys.schedules, 0, -1, withscores=True)
            pipe.zrange(keys.catalogue, 0, -1, withscores=True)
            pipe.xrange(keys.log)
            pipe.xrange(keys.dlq)
            pipe.xrange(keys.dedup)
            pipe.zrange(keys.workers, 0, -1)
            pipe.hgetall(keys.capacity)
            for key in own:
                match key[len(keys.prefix) :]:
                    case name if name.startswith((b"l:", b"r:")):
                        pipe.lrange(key, 0, -1)
                    case name if name.startswith((b"a:", b"s:", b"i:")) or _is_callbacks(name):
                        pipe.smembers(key)
                    case name if name.startswith(b"c:"):
                        pipe.hgetall(key)
                    case name if name.startswith(b"scd:"):
                        pipe.get(key)
                    case name if _is_record(name) or _is_deduplication(name) or _is_reservation(name):
                        pipe.get(key)
                        pipe.pttl(key)
                    case _:
                        pass
            meta, ready, timers, ring, parked, blocked, windows, queues, flows, *rest = pipe.execute()
            schedules, catalogue, log, dlq, dedup, workers, capacity, *rest = rest
        found.meta = {name.decode(): value for name, value in meta.items()}
        found.entries = {entry_id: fields.get(b"i") for entry_id, fields in ready}
        found.timers = {message_id: int(score) for message_id, score in timers}
        found.ring = [lane.decode() for lane in ring]
        found.parked = {lane.decode() for lane in parked}
        found.blocked = {lane.decode() for lane in blocked}
        found.windows = {lane.decode(): int(score) for lane, score in windows}
        found.queues = {name.decode(): int(score) for name, score in queues}
        found.flows = {key.decode(): int(score) for key, score in flows}
        found.schedules = {name.decode(): int(score) for name, score in schedules}
        found.catalogue = {name.decode(): int(score) for name, score in catalogue}
        found.log = [_log_entry(fields[b"e"]) for _, fields in log]
        found.dlq = [(entry_id.decode(), fields[b"i"]) for entry_id, fields in dlq]
        found.dedup = [fields[b"d"][:16] for _, fields in dedup]
        found.workers = {worker.decode() for worker in workers}
        found.capacity = {worker.decode(): int(held) for worker, held in capacity.items()}
        values = iter(rest)
        for key in own:
            name = key[len(keys.prefix) :]
            if name.startswith(b"l:"):
                found.lanes[name[2:].decode()] = next(values)
            elif name.startswith(b"a:"):
                found.admitted[name[2:].decode()] = next(values)
            elif name.startswith(b"r:"):
                found.returning[name[2:].decode()] = next(values)
            elif name.startswith(b"s:"):
                found.slots[name[2:].decode()] = next(values)
            elif name.startswith(b"i:"):
                found.in_flight[name[2:].decode()] = next(values)
            elif _is_callbacks(name):
                found.callbacks[name[1:]] = next(values)
            elif name.startswith(b"c:"):
                found.limits[name[2:].decode()] = {
                    field.decode(): value.decode(errors="backslashreplace") for field, value in next(values).items()
                }
            elif name.startswith(b"scd:"):
                found.schedule_records[name[4:].decode()] = _schedule(name[4:].decode(), next(values))
            elif _is_record(name):
                record, ttl_ms = next(values), next(values)
                if record is not None:  # else it expired between the two looks
                    stored = decode_record(MessageId(name[1:]), record)
                    found.records[name[1:]] = Record(stored=stored, ttl_ms=ttl_ms)
            elif _is_deduplication(name):
                record, ttl_ms = next(values), next(values)
                if record is not None:
                    found.deduplication[name[1:]] = decode_deduplication(record)
                    found.unknown += [key] if ttl_ms < 0 else []
            elif _is_reservation(name):
                reservation, ttl_ms = next(values), next(values)
                if reservation is not None:
                    found.reservations[name[1:]] = reservation[:12]
                    found.unknown += [key] if ttl_ms < 0 else []
            elif not name.startswith(PREFIXES) and name.decode(errors="replace") not in OWNED_FOR_EVER:
                found.unknown.append(key)
        if meta:
            for item in self._client.xpending_range(keys.ready, CONSUMER_GROUP, "-", "+", 1_000_000):
                found.pending[item["message_id"]] = item["consumer"].decode()
        return found

    def problems(self, namespace: str, partitions: int = 1) -> list[str]:
        """What contradicts the invariants, one sentence each; nothing on a sound store."""
        prefixes = tuple(PartitionKeys(namespace, number, partitions).prefix for number in range(partitions))
        beside = [key(namespace) for key in _BESIDE]
        all_keys = self.all_keys(namespace)
        found = [
            f"{key!r} belongs to no partition" for key in all_keys if not key.startswith(prefixes) and key not in beside
        ]
        found += topic_problems(self._client, namespace, partitions, all_keys)
        for number in range(partitions):
            partition = self.read(namespace, number, partitions)
            found += [f"partition {number}: {problem}" for problem in find_problems(partition)]
        return found


def _schedule(schedule_id: str, record: bytes) -> StoredSchedule | None:
    try:
        return decode_schedule(schedule_id, record)
    except StorageError:
        return None


def _is_record(name: bytes) -> bool:
    return name.startswith(b"m") and len(name) == 13


def _is_callbacks(name: bytes) -> bool:
    return name.startswith(b"k") and len(name) == 13


def _is_deduplication(name: bytes) -> bool:
    return name.startswith(b"d") and len(name) == 17


def _is_reservation(name: bytes) -> bool:
    return name.startswith(b"h") and len(name) == 17


def _log_entry(raw: bytes) -> LogEntry:
    return chr(raw[0]), raw[1:13], raw[13:]


def find_problems(partition: Partition, forgotten: Set[bytes] = frozenset()) -> list[str]:
    """See `Inspector.problems`.

    `forgotten`: ids of messages in flight that a reset has made their flow-control key forget.
    """
    return [
        *(f"{key!r} has no lifetime and no owner" for key in partition.unknown),
        *_lane_problems(partition),
        *_limit_problems(partition, forgotten),
        *_schedule_problems(partition),
        *_place_problems(partition, forgotten),
        *_record_problems(partition),
        *_account_problems(partition),
    ]


def _lane_problems(partition: Partition) -> list[str]:
    problems: list[str] = []
    turns = Counter(partition.ring)
    problems += [f"lane {lane} is in the ring {times} times" for lane, times in turns.items() if times > 1]
    waiting = partition.lanes.keys() | partition.returning.keys()
    for lane in waiting:
        places = (lane in turns) + (lane in partition.parked) + (lane in partition.blocked)
        if places != 1:
            problems.append(f"lane {lane} has messages waiting and is in {places} of ring, parked and blocked")
    problems += [f"lane {lane} gets turns, but nothing waits there" for lane in turns if lane not in waiting]
    problems += [f"lane {lane} is parked empty" for lane in partition.parked if lane not in waiting]
    problems += [f"lane {lane} is blocked empty" for lane in partition.blocked if lane not in waiting]
    return problems


def _limit_problems(partition: Partition, forgotten: Set[bytes]) -> list[str]:
    """Counts, slots and flights of queues and flow-control keys, against the messages themselves."""
    problems: list[str] = []
    living: dict[str, set[bytes]] = {}
    flying: dict[str, set[bytes]] = {}
    for message_id, record in partition.records.items():
        if record.stored.state.is_final:
            continue
        route = parse_route(record.stored.lane)
        for lane in route.limited_lanes:
            living.setdefault(lane, set()).add(message_id)
            if lane.startswith("f:") and record.stored.state is State.ACTIVE and message_id not in forgotten:
                flying.setdefault(lane, set()).add(message_id)
        if route.slot is not None and message_id not in partition.callbacks.get(route.slot[1], ()):
            problems.append(f"the slot of {route.slot[1].hex()} does not wait for its callback {message_id.hex()}")
    for lane in living.keys() | partition.limits.keys():
        counted, members = int(partition.limits.get(lane, {}).get("n", 0)), len(living.get(lane, ()))
        if counted != members:
            problems.append(f"lane {lane} counts {counted} messages that are not final, there are {members}")
        if lane.startswith("q:") and not (lane[2:] in partition.queues or partition.limits[lane].get("del") == "1"):
            problems.append(f"queue {lane} is not listed")
        if lane.startswith("f:") and lane[2:] not in partition.flows:
            problems.append(f"flow-control key {lane} is not listed")
    problems += [
        f"lane {lane} has in flight what is not, or the other way round"
        for lane in flying.keys() | partition.in_flight.keys()
        if flying.get(lane, set()) != partition.in_flight.get(lane, set())
    ]
    for lane, slots in partition.slots.items():
        over = slots - living.get(lane, set()) - partition.callbacks.keys()
        problems += [f"queue {lane} keeps a slot for {message_id.hex()}, which is over" for message_id in over]
    for lane, members in partition.returning.items():
        waiting = living.get(lane, set()) & set(members)
        if not waiting <= partition.slots.get(lane, set()):
            problems.append(f"queue {lane} has returning members without a slot")
    for message_id, callbacks in partition.callbacks.items():
        for callback in callbacks:
            record = partition.records.get(callback)
            if record is None or record.stored.state.is_final:
                problems.append(f"{message_id.hex()} waits for its callback {callback.hex()}, which is over")
    return problems


def _schedule_problems(partition: Partition) -> list[str]:
    """Every schedule is listed, and awaited by the workers if it has a next instant."""
    problems: list[str] = []
    if partition.catalogue.keys() != partition.schedule_records.keys():
        problems.append("the catalogue lists other schedules than there are")
    for schedule_id, stored in partition.schedule_records.items():
        is_awaited = schedule_id in partition.schedules
        if stored is not None and is_awaited != (stored.next_fire_ms is not None):
            problems.append(f"the schedule {schedule_id} is awaited: {is_awaited}, its next time {stored.next_fire_ms}")
    return problems


def _place_problems(partition: Partition, forgotten: Set[bytes]) -> list[str]:
    """Places of lanes, against what is in the ready stream and alive."""
    problems: list[str] = []
    held: dict[str, set[bytes]] = {}
    for message_id in partition.entries.values():
        record = partition.records.get(message_id or b"")
        if record is not None and not record.stored.state.is_final:
            route = parse_route(record.stored.lane)
            place = route.limited_lanes[-1] if route.limited_lanes else f"h:{route.host}"
            if record.stored.id not in forgotten:
                held.setdefault(place, set()).add(record.stored.id)
    for lane in held.keys() | partition.admitted.keys():
        admitted, ready = partition.admitted.get(lane, set()), held.get(lane, set())
        if admitted != ready:
            problems.append(
                f"lane {lane}: {len(admitted - ready)} places held by messages that are not ready,"
                f" {len(ready - admitted)} ready without a place"
            )
    problems += [
        f"entry {entry!r} is pending but gone" for entry in partition.pending if entry not in partition.entries
    ]
    return problems


def _account_problems(partition: Partition) -> list[str]:
    """What is kept for a later clean-up, against what it is for."""
    problems: list[str] = []
    counted = sum(int.from_bytes(details, "big") for letter, _, details in partition.log if letter in "DXZ")
    if counted != partition.finished_bytes:
        problems.append(f"finished records count {partition.finished_bytes} bytes, by the log {counted}")
    lost = partition.deduplication.keys() - set(partition.dedup)
    problems += [f"nobody would drop the deduplication record {digest.hex()}" for digest in lost]
    return problems


def _record_problems(partition: Partition) -> list[str]:
    """Every message is where its state says, once, and nowhere else."""
    problems: list[str] = []
    entries: dict[bytes, list[bytes]] = {}
    for entry_id, message_id in partition.entries.items():
        if message_id is not None:
            entries.setdefault(message_id, []).append(entry_id)
    lists = (*partition.lanes.values(), *partition.returning.values())
    waiting = Counter(message_id for waiting in lists for message_id in waiting)
    dead = Counter(message_id for _, message_id in partition.dlq)
    for message_id, record in partition.records.items():
        stored = record.stored
        state, name = stored.state, f"message {message_id.hex()} ({stored.state.name})"
        own_entries = entries.get(message_id, [])
        is_timed, lines = message_id in partition.timers, waiting[message_id]
        if state.is_final:
            if record.ttl_ms < 0:
                problems.append(f"{name} has no lifetime")
            if is_timed:
                problems.append(f"{name} is in the timers")
            if state is State.FAILED and dead[message_id] > 1:
                problems.append(f"{name} is {dead[message_id]} dead letters")
            if state is not State.CANCELED and own_entries:
                problems.append(f"{name} is still in the ready stream")
            continue
        if record.ttl_ms != -1:
            problems.append(f"{name} would be forgotten in {record.ttl_ms} ms")
        expected = {
            State.DELAYED: (1, 0, 0),
            State.QUEUED: (0, 1 - len(own_entries), len(own_entries)),
            State.ACTIVE: (0, 0, 1),
        }[state]
        if (is_timed, lines, len(own_entries)) != expected or len(own_entries) > 1:
            problems.append(f"{name} is in the timers {is_timed:d}, waiting {lines}, ready {len(own_entries)} times")
        if state is State.DELAYED and is_timed and partition.timers[message_id] != stored.due_ms:
            problems.append(f"{name} is due at {stored.due_ms} but its timer says {partition.timers[message_id]}")
        if state is State.ACTIVE and own_entries and own_entries[0] not in partition.pending:
            problems.append(f"{name} is not leased to anybody")
        if state is not State.ACTIVE and stored.claims and state is not State.QUEUED:
            problems.append(f"{name} still counts {stored.claims} claims")
        if dead[message_id]:
            problems.append(f"{name} is a dead letter")
    problems += [f"timer of {one.hex()} without a message" for one in partition.timers if one not in partition.records]
    for _, message_id in partition.dlq:
        record = partition.records.get(message_id)
        if record is not None and record.stored.state is not State.FAILED:
            problems.append(f"dead letter {message_id.hex()} is {record.stored.state.name}")
    return problems

"""What holds for queues and flow-control keys after every step, checked on what lies in Redis."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qstash_clone.domain.lanes import flow_control_lane, queue_lane
from qstash_clone.domain.message import NewMessage, State
from qstash_clone.ids import MessageId
from tests.support.snapshot import Partition

MARGIN_MS = 20
MARGIN_SHARE = 0.02
"""No attempt starts in the last moments of a rate window."""


@dataclass(slots=True, kw_only=True)
class Life:
    """What the model knows of a message."""

    new: NewMessage
    state: State
    queue: str | None = None
    key: str | None = None
    slot_of: tuple[str, MessageId] | None = None
    """Of a callback: queue and id of the member whose slot it keeps."""
    joined: int = 0
    """Orders the messages by the time at which they became due, for the first time."""
    generation: int = 0
    cancel_requested: bool = False
    was_attempted: bool = False
    is_aged: bool = False
    is_deleted: bool = False
    """Its queue was deleted while an attempt was under way."""

    @property
    def is_living(self) -> bool:
        return not self.state.is_final


Lives = Mapping[MessageId, Life]


def slot_problems(partition: Partition, lives: Lives) -> list[str]:
    """A slot is held from before the first attempt until the member and all its callbacks are final."""
    waited_for = {life.slot_of[1] for life in lives.values() if life.slot_of is not None and life.is_living}
    in_line = {message_id for lane, ids in partition.lanes.items() if lane.startswith("q:") for message_id in ids}
    problems: list[str] = []
    for message_id, life in lives.items():
        if life.queue is None:
            continue
        holds = message_id in partition.slots.get(queue_lane(life.queue), ())
        is_begun = life.was_attempted or (life.state is State.QUEUED and message_id not in in_line)
        expected = message_id in waited_for or (life.is_living and is_begun)
        if holds != expected:
            problems.append(f"{message_id.hex()} ({life.state.name}) holds a slot: {holds}, expected: {expected}")
    return problems


def queue_order_problems(partition: Partition, lives: Lives) -> list[str]:
    """Members get their slots in the order in which they became due."""
    problems: list[str] = []
    for lane, ids in partition.lanes.items():
        if not lane.startswith("q:"):
            continue
        waiting = [lives[MessageId(one)].joined for one in ids if lives[MessageId(one)].is_living]
        if waiting != sorted(waiting):
            problems.append(f"the line of {lane} is out of order: {waiting}")
        holders = [lives[MessageId(one)].joined for one in partition.slots.get(lane, ())]
        if waiting and holders and max(holders) > waiting[0]:
            problems.append(f"somebody has overtaken in {lane}: {sorted(holders)} before {waiting}")
    return problems


def blocked_problems(partition: Partition, now_ms: int) -> list[str]:
    """A lane is blocked only by what will reopen it."""
    problems: list[str] = []
    for lane in partition.blocked:
        limits = partition.limits.get(lane, {})
        if lane.startswith("q:"):
            is_full = len(partition.slots.get(lane, ())) >= int(limits.get("p", 1))
            if limits.get("x") != "1" and (not is_full or lane in partition.returning):
                problems.append(f"nothing holds up {lane}")
        elif limits.get("x") != "1" and room_of(partition, lane, now_ms) > 0:
            # A timer that is due reopens it as soon as somebody looks; one of a clock that was set back later on.
            if lane not in partition.windows or int(limits.get("ws", 0)) <= now_ms < partition.windows[lane]:
                problems.append(f"nothing holds up {lane}")
        elif limits.get("x") != "1" and is_held_by_rate_only(partition, lane, now_ms):
            ends_ms = window_end(limits, now_ms)
            if ends_ms is not None and partition.windows.get(lane, ends_ms + 1) > ends_ms:
                problems.append(f"nobody reopens {lane} at the end of its window")
    return problems


def window_end(limits: Mapping[str, str], now_ms: int) -> int | None:
    """The end of the rate window that is open."""
    if not int(limits.get("r", 0)) or "ws" not in limits:
        return None
    started_ms, ends_ms = int(limits["ws"]), int(limits["ws"]) + int(limits["w"])
    return ends_ms if started_ms <= now_ms < ends_ms else None


def room_of(partition: Partition, lane: str, now_ms: int) -> float:
    """How many more attempts of a flow-control key its limits allow."""
    limits, admitted = partition.limits.get(lane, {}), len(partition.admitted.get(lane, ()))
    parallelism = int(limits.get("p", 0))
    room = parallelism - admitted if parallelism else float("inf")
    return min(room, _room_of_rate(partition, lane, now_ms))


def is_held_by_rate_only(partition: Partition, lane: str, now_ms: int) -> bool:
    """Whether another end than that of the window would change nothing."""
    parallelism = int(partition.limits.get(lane, {}).get("p", 0))
    is_full = parallelism and len(partition.admitted.get(lane, ())) >= parallelism
    return not is_full and _room_of_rate(partition, lane, now_ms) <= 0


def _room_of_rate(partition: Partition, lane: str, now_ms: int) -> float:
    limits = partition.limits.get(lane, {})
    rate = int(limits.get("r", 0))
    if not rate:
        return float("inf")
    ends_ms, counted = window_end(limits, now_ms), 0
    if ends_ms is not None:
        is_late = now_ms >= ends_ms - min(MARGIN_MS, int(limits["w"]) * MARGIN_SHARE)
        counted = max(int(limits.get("wc", 0)), rate if is_late else 0)
    unstarted = len(partition.admitted.get(lane, set()) - partition.in_flight.get(lane, set()))
    return rate - counted - unstarted


def members_of(lives: Iterable[Life], queue: str) -> int:
    """How many members of a queue are not final: its `lag`."""
    return sum(life.queue == queue and life.is_living for life in lives)


def waiting_for(partition: Partition, lives: Lives, key: str) -> int:
    """How many messages are due and wait for a flow-control key: its `waitListSize`."""
    in_line = partition.lanes.get(flow_control_lane(key), [])
    return sum(lives[MessageId(message_id)].is_living for message_id in in_line)

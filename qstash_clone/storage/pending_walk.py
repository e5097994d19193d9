"""Walks through the messages that are not final, where they wait: there is no index of them.

A message waits in the timers, in the line of its lane, or it has a place in the ready stream until its attempt ends,
and it moves on in this order. The walk goes the same way, so that nothing slips past it: first what is in the ready
stream when it begins, then the timers, then the lanes, then what came into the ready stream meanwhile. A message that
moves on during the walk may be met again. Only one that goes a whole round, an attempt included, can be missed.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from qstash_clone.domain.message import State
from qstash_clone.ids import MessageId
from qstash_clone.storage.access import StoreAccess
from qstash_clone.storage.codec import STORAGE_VERSION
from qstash_clone.storage.commands import Argument
from qstash_clone.storage.places import not_a_cursor

LANES_TOGETHER: Final = 250
_LINE: Final = "l:"
_RETURNING: Final = "r:"
"""The list of a queue's members that have a slot and wait for their next attempt."""

_ENTRY: Final = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
_ID_BYTES: Final = 12
_MOST: Final = 1 << 53


class Stage(StrEnum):
    """The places that a walk goes through, in this order."""

    READY = "r"
    TIMERS = "t"
    LANES = "l"
    NEWLY_READY = "n"


_NEXT: Final = {Stage.READY: Stage.TIMERS, Stage.TIMERS: Stage.LANES, Stage.LANES: Stage.NEWLY_READY}
STATES: Final = {
    Stage.READY: frozenset({State.QUEUED, State.ACTIVE}),
    Stage.TIMERS: frozenset({State.DELAYED}),
    # What was claimed since is met again in the ready stream; what has even failed since would be missed.
    Stage.LANES: frozenset({State.QUEUED, State.DELAYED}),
    Stage.NEWLY_READY: frozenset({State.QUEUED, State.ACTIVE, State.DELAYED}),
}
"""In which states a message belongs to a stage. One that is met in another state has just moved on."""


class Position(msgspec.Struct, frozen=True, array_like=True):
    """How far a walk has come; made into a cursor and back."""

    partition: int = 0
    stage: Stage = Stage.READY
    until: str = ""
    """In the ready stream: its last entry when this stage began, "" for not known yet. Else that of the first stage,
    where the last one begins."""
    entry: str = ""
    """The last entry of the ready stream that was looked at."""
    id: bytes = b""
    """The last message of the timers or of the lane."""
    number: int = 0
    """Its due time in the timers, or its index in the lane."""
    lane: str = ""
    """Its list: `l:` or `r:`, and the lane."""

    def cursor(self) -> str:
        """As a text for callers, who cannot make sense of it."""
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).decode().rstrip("=")

    @classmethod
    def parse(cls, cursor: str, partitions: int) -> "Position":
        """Raises `InvalidRequest` for a text that no walk of this store has given out."""
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            position = msgspec.msgpack.decode(raw, type=cls)
        except (binascii.Error, ValueError):
            raise not_a_cursor(cursor) from None
        is_sound = (
            0 <= position.partition < partitions
            and all(not entry or _ENTRY.fullmatch(entry) for entry in (position.until, position.entry))
            and len(position.id) in (0, _ID_BYTES)
            and 0 <= position.number < _MOST
            and position.cursor() == cursor
        )
        if not is_sound:
            raise not_a_cursor(cursor)
        return position


Step = tuple[MessageId, Position]
"""A message, and how far the walk has come with it."""


class PendingWalk:
    """Ids of pending messages in batches, partition after partition."""

    def __init__(self, access: StoreAccess, position: Position | None) -> None:
        self._access = access
        self.position = position or Position()
        """Behind everything that was handed out."""
        self._is_over = False
        self._lanes: list[str] | None = None
        """Those of this partition that are still to be read; None if not known yet."""

    async def next(self, count: int) -> tuple[Stage, list[Step]]:
        """The next ids, at most `count`, and the stage they are of; none at the end."""
        while not self._is_over:
            stage = self.position.stage
            match stage:
                case Stage.READY | Stage.NEWLY_READY:
                    steps = await self._ready(count)
                case Stage.TIMERS:
                    steps = await self._timers(count)
                case Stage.LANES:
                    steps = await self._waiting(count)
            if steps is None:
                self._advance()
                continue
            self.position = steps[-1][1] if steps else self.position
            if steps:
                return stage, steps
        return Stage.NEWLY_READY, []

    def _advance(self) -> None:
        position, following = self.position, _NEXT.get(self.position.stage)
        if following is Stage.NEWLY_READY:
            self.position = Position(position.partition, following, "", position.until)
        elif following is not None:
            self.position = Position(position.partition, following, position.until)
        elif position.partition + 1 < self._access.partitions:
            self.position = Position(position.partition + 1)
        else:
            self._is_over = True
        self._lanes = None

    async def _ready(self, count: int) -> list[Step] | None:
        keys, position = self._access.keys[self.position.partition], self.position
        if not position.until:
            newest = await self._access.commands.ask("XREVRANGE", keys.ready, "+", "-", "COUNT", 1)
            position = msgspec.structs.replace(position, until=newest[0][0].decode() if newest else "0-0")
        start = f"({position.entry}" if position.entry else "-"
        entries = await self._access.commands.ask("XRANGE", keys.ready, start, position.until, "COUNT", count)
        if not entries:
            self.position = position
            return None
        self.position = msgspec.structs.replace(position, entry=entries[-1][0].decode())
        return [
            (MessageId(fields[b"i"]), msgspec.structs.replace(position, entry=entry_id.decode()))
            for entry_id, fields in entries
            if b"i" in fields  # else it is a doorbell
        ]

    async def _timers(self, count: int) -> list[Step] | None:
        keys, position = self._access.keys[self.position.partition], self.position
        reply, _ = await self._access.runner.run(
            "list_timers", [keys.meta, keys.timers], [STORAGE_VERSION, position.number, position.id, count]
        )
        return [
            (MessageId(reply[at]), msgspec.structs.replace(position, id=reply[at], number=int(reply[at + 1])))
            for at in range(1, len(reply), 2)
        ] or None

    async def _waiting(self, count: int) -> list[Step] | None:
        keys, position = self._access.keys[self.position.partition], self.position
        if self._lanes is None:
            # Lanes move between the three all the time, but each is in one of them at any moment.
            ring, parked, blocked = await self._access.commands.ask_all(
                [("LRANGE", keys.ring, 0, -1), ("SMEMBERS", keys.parked), ("SMEMBERS", keys.blocked)], atomically=True
            )
            lanes = {_LINE + lane.decode() for lane in (*ring, *parked, *blocked)}
            lanes |= {_RETURNING + lane.removeprefix(_LINE) for lane in lanes if lane.startswith(_LINE + "q:")}
            self._lanes = sorted((lane for lane in lanes if lane >= position.lane), reverse=True)
        if not self._lanes:
            return None
        if self._lanes[-1] != position.lane:
            position = Position(position.partition, position.stage, position.until, lane=self._lanes[-1])
        asked = self._lanes[: -LANES_TOGETHER - 1 : -1]
        args: list[Argument] = [STORAGE_VERSION, count, position.id, position.number, *asked]
        reply, _ = await self._access.runner.run("list_waiting", [keys.meta], args)
        _, start, *lists = reply
        steps: list[Step] = []
        for lane, ids in zip(asked, lists, strict=False):
            steps += _in_lane(position, lane, start, ids)
            start = 0
        # The last one may go on.
        del self._lanes[len(self._lanes) - len(lists) + 1 :]
        if not lists[-1]:
            self._lanes.pop()
        return steps


def _in_lane(position: Position, lane: str, start: int, ids: Sequence[Any]) -> list[Step]:
    return [
        (MessageId(one), Position(position.partition, Stage.LANES, position.until, "", one, start + offset, lane))
        for offset, one in enumerate(ids)
    ]

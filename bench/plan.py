"""How much is measured: the sizes of a full and of a quick run, and what every measure is given."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from bench.engine import Engine
from bench.processes import Nursery
from bench.report import Figure
from qstash_clone.storage.store import Store, open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Numbers of messages, rounds and seconds."""

    rounds: int
    publish_s: float
    delivered: int
    """Messages of a backlog that one worker drains."""
    lone_messages: int
    """Messages published one at a time for their latency."""
    due: int
    """Timers, a thousand of which are due each second."""
    waiting: int
    """Messages in a full store."""
    counted: int
    """Messages whose commands are counted."""
    others: int
    """Messages that wait for another host while latency is measured."""
    starts: int
    schedules: int
    """Schedules that are not due."""
    due_schedules: int
    """Schedules that are due at once."""
    idle_s: float
    """How long a worker is watched that has nothing to do."""
    windows: int
    """Rate windows for which messages wait."""
    lanes: int
    """Queues and flow-control keys over which waiting messages are spread."""


FULL = Sizes(
    rounds=5,
    publish_s=2.5,
    delivered=20_000,
    lone_messages=500,
    due=10_000,
    waiting=1_000_000,
    counted=200,
    others=20_000,
    starts=5,
    schedules=100_000,
    due_schedules=10_000,
    idle_s=10.0,
    windows=12,
    lanes=10_000,
)
QUICK = Sizes(
    rounds=3,
    publish_s=1.0,
    delivered=4_000,
    lone_messages=150,
    due=3_000,
    waiting=50_000,
    counted=50,
    others=5_000,
    starts=3,
    schedules=5_000,
    due_schedules=1_000,
    idle_s=3.0,
    windows=5,
    lanes=2_000,
)


class Bench:
    """The folder, the sizes, and fresh engines and processes for each measure."""

    def __init__(self, sizes: Sizes, folder: Path, say: Callable[[str], None]) -> None:
        self.sizes = sizes
        self.folder = folder
        self.say = say
        self._numbers = count()

    def engine(self) -> Engine:
        """A Redis on an empty folder."""
        return Engine(self.new_folder("redis"))

    def nursery(self) -> Nursery:
        """Children whose logs go to a folder of their own."""
        folder = self.new_folder("logs")
        folder.mkdir()
        return Nursery(folder)

    def new_folder(self, name: str) -> Path:
        """A folder that does not exist yet."""
        return self.folder / f"{name}-{next(self._numbers)}"

    @asynccontextmanager
    async def store(self, engine: Engine) -> AsyncGenerator[Store]:
        """The store's code in this process."""
        store = await open_store(engine.settings())
        try:
            yield store
        finally:
            await store.aclose()


Measure = Callable[[Bench], Awaitable[list[Figure]]]

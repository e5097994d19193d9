"""What tests of steps that break off begin with and end with."""

from collections.abc import Awaitable, Callable

from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store
from tests.storage.conftest import AgeLeases, Look, MoveClock
from tests.support.messages import claim_all, delivered

Step = Callable[[], Awaitable[object]]
Begin = Callable[["Scene"], Awaitable[tuple[MessageId, Step]]]
"""Brings a message to where the step is taken that a key fails in; returns its id and the step."""


class Scene:
    """What the beginnings need."""

    def __init__(self, store: Store, settings: Settings, age: AgeLeases, move: MoveClock, look: Look) -> None:
        self.store, self.settings, self.age, self.move, self.look = store, settings, age, move, look


async def drain(scene: Scene) -> None:
    """Work on until nothing is left; whatever waits for ever shows."""
    for _ in range(20):
        await scene.store.delivery.heartbeat("w1", 10)
        await scene.move(60_000)
        await scene.store.delivery.promote(0, 100)
        await scene.age()
        for claim in await claim_all(scene.store, reclaim=True):
            await scene.store.delivery.settle(delivered(claim))

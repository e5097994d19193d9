"""A receiver that answers each path only when it is told to: what is in flight meanwhile is what may be."""

import asyncio

from tests.support.eventually import eventually
from tests.support.receiver import ReceivedRequest, Receiver, Reply

PASSES_BY = "/passes-by"
"""Answered at once: the path of a plain message whose arrival says that others had their chance."""


class Gates:
    """Takes over a receiver; scripts still come first."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._gates: dict[str, asyncio.Event] = {}
        self._all_open = False
        receiver.handler = self._reply

    @property
    def paths(self) -> list[str]:
        """Of what has arrived, in order, but for what passed by."""
        return arrived_paths(self._receiver)

    async def wait_for(self, count: int) -> list[str]:
        """Wait until at least so many requests have arrived, not counting what passed by; their paths."""
        await eventually(lambda: len(self.paths) >= count, what=f"{count} arrivals, of which there are {self.paths}")
        return self.paths

    def open(self, *paths: str) -> None:
        """Answer these paths, now and from now on."""
        for path in paths:
            self._gate(path).set()

    def open_all(self) -> None:
        """Answer everything."""
        self._all_open = True
        self.open(*self._gates)

    def _reply(self, request: ReceivedRequest) -> Reply:
        is_open = self._all_open or request.path == PASSES_BY
        return Reply() if is_open else Reply(after=self._gate(request.path))

    def _gate(self, path: str) -> asyncio.Event:
        return self._gates.setdefault(path, asyncio.Event())


def arrived_paths(receiver: Receiver) -> list[str]:
    """Of what has arrived, in order, but for what passed by."""
    return [request.path for request in receiver.requests if request.path != PASSES_BY]

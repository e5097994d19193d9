"""The receiver process of a fault run, and what its ledger says."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.eventually import eventually
from tests.support.ledger import LedgerReader
from tests.support.processes import free_port


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request as its receiver saw it."""

    began_ns: int
    """Unix time, by the clock that Redis on the same machine has too."""
    key: str
    """Of the body; for a callback the id of the message it reports."""
    message_id: str
    retried: int
    path: str
    schedule_id: str | None
    ended_ns: int | None = None
    status: int | None = None
    """None while it is under way, 0 if the sender went before the answer."""


class Recording:
    """What a receiver has written down so far."""

    def __init__(self, ledger: Path) -> None:
        self._reader = LedgerReader(ledger)
        self._by_number: dict[str, Exchange] = {}
        self.exchanges: list[Exchange] = []
        """In the order of arrival."""
        self.concurrency: list[tuple[int, int]] = []
        """Unix ns of each arrival and each end, and how many requests were under way from then on."""
        self._under_way = 0

    def read(self) -> Iterator[Exchange]:
        """Read on; what has arrived since the last call."""
        for kind, number, at_ns, *words in self._reader.new_facts():
            if kind == "arrived":
                key, message_id, retried, path, schedule_id = words
                exchange = self._by_number[number] = Exchange(
                    began_ns=int(at_ns),
                    key=key,
                    message_id=message_id,
                    retried=int(retried),
                    path=path,
                    schedule_id=None if schedule_id == "-" else schedule_id,
                )
                self.exchanges.append(exchange)
                self._under_way += 1
                yield exchange
            else:
                exchange = self._by_number.pop(number)
                exchange.ended_ns, exchange.status = int(at_ns), int(words[0])
                self._under_way -= 1
            self.concurrency.append((int(at_ns), self._under_way))

    def update(self) -> None:
        """Read on."""
        for _ in self.read():
            pass


class ReceiverProcess:
    """A context manager: it listens inside, on a lane of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._ledger = folder / f"receiver-{self.port}"
        self.recording = Recording(self._ledger)
        self._process: asyncio.subprocess.Process | None = None

    def url(self, path: str, *, wait_ms: tuple[int, int] = (0, 0), fail: int = 0) -> str:
        """An address where requests get what is asked for here."""
        return f"http://127.0.0.1:{self.port}/{path}?wait={wait_ms[0]}-{wait_ms[1]}&fail={fail}"

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.receiver_process", str(self.port), str(self._ledger)
        )
        await eventually(self._listens)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        self.recording.update()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

"""The clock of messages, moved as users move it."""

from tests.support.client import Client

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


class DevClock:
    """`/dev/clock` of one api; each method returns the time that the clock shows then, in ms."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def now(self) -> int:
        return (await self._client.send("GET", "/dev/clock"))["now"]

    async def advance(self, by: str | int) -> int:
        """By a duration, or by so many milliseconds."""
        return await self._move("advance", by)

    async def to(self, at_ms: int) -> int:
        return await self._move("to", at_ms)

    async def freeze(self) -> int:
        return await self._move("freeze", True)

    async def go_on(self) -> int:
        return await self._move("freeze", False)

    async def _move(self, how: str, value: object) -> int:
        return (await self._client.send("POST", "/dev/clock", {how: value}))["now"]

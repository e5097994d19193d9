"""What the api and the workers ask of the store about queues, flow-control keys and URL groups.

As for the rest of the store, see `storage.interface`: every method is one atomic step and safe to repeat.
"""

from collections.abc import Callable
from typing import Protocol

from qstash_clone.domain.limited_lanes import FlowControlKey, Queue
from qstash_clone.domain.url_groups import UrlGroup


class QueueStore(Protocol):
    """Queues; a queue lives in the partition of its name, with all its messages."""

    async def list_queues(self) -> list[Queue]:
        """All, in the order of their creation."""
        ...

    async def get_queue(self, name: str) -> Queue | None: ...

    async def put_queue(self, name: str, *, parallelism: int | None, is_paused: bool | None, max_queues: int) -> bool:
        """Create or change one; None leaves a value as it is, or gives a new queue parallelism 1 and no pause.

        Returns False, with nothing changed, for a new queue where there are `max_queues`.
        """
        ...

    async def set_queue_paused(self, name: str, is_paused: bool) -> bool:
        """Whether there is such a queue."""
        ...

    async def delete_queue(self, name: str) -> bool:
        """Cancel its waiting messages and forget it; an attempt in flight ends as usual. Whether there was one."""
        ...


class FlowControlStore(Protocol):
    """Flow-control keys; one lives in the partition of its name, with all its messages."""

    async def list_flow_control_keys(self, search: str) -> list[FlowControlKey]:
        """Those whose key contains `search`, in the order of their keys."""
        ...

    async def get_flow_control_key(self, key: str) -> FlowControlKey | None: ...

    async def set_flow_control_paused(self, key: str, is_paused: bool) -> None:
        """A pause makes a new key; a resume of an unknown one does nothing."""
        ...

    async def pin_flow_control(self, key: str, *, parallelism: int | None, rate: int | None, period_ms: int) -> None:
        """Fix these parts: later messages do not change them. Count and window of a pinned rate start afresh."""
        ...

    async def unpin_flow_control(self, key: str, *, parallelism: bool, rate: bool) -> None: ...

    async def reset_flow_control(self, key: str, *, parallelism: bool) -> None:
        """End the current window with its count, and with `parallelism` forget what is in flight."""
        ...


class UrlGroupStore(Protocol):
    """URL groups; they live beside the partitions."""

    async def list_url_groups(self) -> list[UrlGroup]:
        """All, in the order of their creation."""
        ...

    async def get_url_group(self, name: str) -> UrlGroup | None: ...

    async def change_url_group(
        self, name: str, change: Callable[[UrlGroup | None, int], UrlGroup | None]
    ) -> UrlGroup | None:
        """Replace a group by what `change(group or None, now in ms)` makes of it; None deletes it.

        `change` is called again when another process changed the group meanwhile. What it raises changes nothing.
        """
        ...

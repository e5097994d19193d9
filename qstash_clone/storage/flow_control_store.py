"""Flow-control keys: pausing, pinning, resetting and reading them."""

from collections.abc import Sequence

from qstash_clone.domain.lanes import flow_control_lane
from qstash_clone.domain.limited_lanes import FlowControlKey
from qstash_clone.storage.access import StoreAccess
from qstash_clone.storage.codec import STORAGE_VERSION
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import lane_partition
from qstash_clone.storage.scanning import scan_sorted_set


class RedisFlowControlStore:
    """`FlowControlStore` on Redis."""

    def __init__(self, access: StoreAccess) -> None:
        self._access = access

    def _keys_of(self, key: str) -> PartitionKeys:
        return self._access.keys[lane_partition(flow_control_lane(key), self._access.partitions)]

    async def list_flow_control_keys(self, search: str) -> list[FlowControlKey]:
        found: dict[str, FlowControlKey] = {}
        for keys in self._access.keys:
            async for names in scan_sorted_set(self._access.commands, keys.flows):
                chosen = [key for key in (name.decode() for name in names) if search in key]
                found |= {one.key: one for one in await self._read(keys, chosen)}
        return sorted(found.values(), key=lambda one: one.key)

    async def get_flow_control_key(self, key: str) -> FlowControlKey | None:
        found = await self._read(self._keys_of(key), [key])
        return found[0] if found else None

    async def _read(self, keys: PartitionKeys, names: Sequence[str]) -> list[FlowControlKey]:
        """Those of these that exist."""
        if not names:
            return []
        reply, _ = await self._access.runner.run("read_flow_control", [keys.meta], [STORAGE_VERSION, *names])
        return [decode_flow_control_key(key, fields) for key, fields in zip(names, reply[1:], strict=True) if fields]

    async def set_flow_control_paused(self, key: str, is_paused: bool) -> None:
        await self._change(key, "pause" if is_paused else "resume")

    async def pin_flow_control(self, key: str, *, parallelism: int | None, rate: int | None, period_ms: int) -> None:
        await self._change(key, "pin", parallelism or 0, rate or 0, period_ms)

    async def unpin_flow_control(self, key: str, *, parallelism: bool, rate: bool) -> None:
        await self._change(key, "unpin", int(parallelism), int(rate))

    async def reset_flow_control(self, key: str, *, parallelism: bool) -> None:
        await self._change(key, "reset", int(parallelism), 1)

    async def _change(self, key: str, verb: str, parallelism: int = 0, rate: int = 0, period_ms: int = 0) -> None:
        await self._access.runner.run(
            "change_flow_control",
            [self._keys_of(key).meta],
            [STORAGE_VERSION, key, verb, parallelism, rate, period_ms],
        )


def decode_flow_control_key(key: str, fields: Sequence[int]) -> FlowControlKey:
    """A key as the scripts describe it."""
    waiting, parallelism, in_flight, rate, counted, period_ms, started_ms, is_paused, pins_parallelism, pins_rate = (
        fields
    )
    return FlowControlKey(
        key=key,
        waiting=waiting,
        parallelism=parallelism,
        in_flight=in_flight,
        rate=rate,
        rate_count=counted,
        period_ms=period_ms,
        window_started_ms=started_ms,
        is_paused=is_paused == 1,
        is_parallelism_pinned=pins_parallelism == 1,
        is_rate_pinned=pins_rate == 1,
    )

"""Queues and flow-control keys in the JSON that QStash's clients expect: every field always, 0 for what is not set."""

from typing import Any

from qstash_clone.domain.limited_lanes import FlowControlKey, Queue


def queue_fields(queue: Queue) -> dict[str, Any]:
    """As `GET /v2/queues/{name}` shows it."""
    return {
        "name": queue.name,
        "parallelism": queue.parallelism,
        "createdAt": queue.created_ms,
        "updatedAt": queue.updated_ms,
        "lag": queue.lag,
        "paused": queue.is_paused,
    }


def flow_control_fields(key: FlowControlKey) -> dict[str, Any]:
    """As `GET /v2/flowControl/{key}` shows it; here times are in seconds."""
    return {
        "flowControlKey": key.key,
        "waitListSize": key.waiting,
        "parallelismMax": key.parallelism,
        "parallelismCount": key.in_flight,
        "rateMax": key.rate,
        "rateCount": key.rate_count,
        "ratePeriod": key.period_ms // 1000,
        "ratePeriodStart": key.window_started_ms // 1000,
        "isPaused": key.is_paused,
        "isPinnedParallelism": key.is_parallelism_pinned,
        "isPinnedRate": key.is_rate_pinned,
    }

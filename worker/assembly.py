"""Puts the parts of one worker together."""

import os
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from qstash_clone.clock import Clock
from qstash_clone.domain.llm import llm_upstream
from qstash_clone.domain.outcome import BackoffPolicy, KeptAnswer
from qstash_clone.settings import Settings
from qstash_clone.storage.interface import DeliveryStore
from qstash_clone.storage.resources import FiringStore, UrlGroupStore
from qstash_clone.topics.interface import TopicRetention
from worker.claim import ClaimLoop
from worker.deliver import Deliverer
from worker.health import Health
from worker.heartbeat import HeartbeatLoop
from worker.holdings import Holdings, Slots
from worker.janitor import JanitorLoop
from worker.leases import RENEWALS_PER_LEASE, LeaseLoop, ReclaimGate
from worker.redis_clock import RedisClock
from worker.scheduler import ScheduleLoop
from worker.settle import Settler
from worker.supervisor import Loops, Supervisor
from worker.timers import TimerLoop
from worker.topic_janitor import TopicJanitorLoop
from worker.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """The parts of one worker that others ask for."""

    supervisor: Supervisor
    loops: Loops
    holdings: Holdings
    slots: Slots
    gate: ReclaimGate
    deliverer: Deliverer

    def gauges(self) -> Mapping[str, tuple[str, float]]:
        """Values for /metrics."""
        return gauges_of(len(self.holdings), self.slots.capacity)


def gauges_of(held: int, capacity: int) -> dict[str, tuple[str, float]]:
    """What a worker shows of itself besides the instruments, name to help and value."""
    return {
        "worker_in_flight": ("Deliveries that this worker holds at the moment.", held),
        "worker_slots": ("Deliveries that this worker may hold at once.", capacity),
    }


def new_consumer_name() -> str:
    """Unique for each start: a restarted worker must not inherit leases that it knows nothing of."""
    return f"{socket.gethostname()[:64]}-{os.getpid()}-{os.urandom(4).hex()}"


def assemble(
    settings: Settings,
    *,
    store: DeliveryStore,
    schedules: FiringStore,
    url_groups: UrlGroupStore,
    topics: TopicRetention,
    transport: Transport,
    clock: Clock,
    health: Health,
    consumer: str,
    rng: random.Random,
) -> Worker:
    """One worker; nothing runs before `supervisor.run()`."""
    lease_ms = settings.lease_ms
    holdings = Holdings()
    slots = Slots(settings.worker_concurrency)
    gate = ReclaimGate(clock, lease_ms)
    leases = LeaseLoop(store=store, consumer=consumer, holdings=holdings, lease_ms=lease_ms, clock=clock, health=health)

    def extend_first() -> None:
        """Leases may have aged while Redis was away or its clock jumped: renew now, reclaim a lease later."""
        gate.close()
        leases.wake()

    health.on_fault.append(extend_first)
    partitions = range(store.partitions)
    janitors = [
        JanitorLoop(store=store, partition=partition, clock=clock, health=health, rng=rng) for partition in partitions
    ]
    topic_janitor = TopicJanitorLoop(topics=topics, clock=clock, health=health, rng=rng)

    def expire_anew(partition: int) -> None:
        """The clock of messages was moved on: what was young may be old now."""
        janitors[partition].wake()
        topic_janitor.wake()

    redis_clocks = [
        RedisClock(clock, lease_ms / RENEWALS_PER_LEASE, extend_first, on_advance=partial(expire_anew, partition))
        for partition in partitions
    ]
    timers = [
        TimerLoop(store=store, partition=partition, redis_clock=redis_clocks[partition], clock=clock, health=health)
        for partition in partitions
    ]
    schedulers = [
        ScheduleLoop(
            store=schedules,
            url_groups=url_groups,
            partition=partition,
            max_lateness_ms=settings.schedule_max_lateness_ms or None,
            clock=clock,
            health=health,
            rng=rng,
        )
        for partition in partitions
    ]

    def ring(partition: int) -> None:
        """Something is due earlier than expected."""
        timers[partition].wake()
        schedulers[partition].wake()

    deliverer = Deliverer(
        store=store,
        transport=transport,
        settler=Settler(store=store, lease_ms=lease_ms, clock=clock, health=health),
        holdings=holdings,
        slots=slots,
        redis_clocks=redis_clocks,
        policy=BackoffPolicy(coefficient=settings.retry_backoff_coefficient, cap_ms=settings.retry_backoff_cap_ms),
        kept=KeptAnswer(final_body_bytes=settings.max_message_bytes),
        consumer=consumer,
        region=settings.region,
        llm=llm_upstream(settings.llm_base_url, settings.llm_api_key),
        on_retry=lambda partition, delay_ms: timers[partition].expect(delay_ms),
        lease_ms=lease_ms,
        max_claims=settings.max_claims,
        clock=clock,
    )
    loops = Loops(
        heartbeat=HeartbeatLoop(
            store=store, consumer=consumer, capacity=settings.worker_concurrency, clock=clock, health=health
        ),
        leases=leases,
        claims=[
            ClaimLoop(
                store=store,
                partition=partition,
                consumer=consumer,
                slots=slots,
                gate=gate,
                redis_clock=redis_clocks[partition],
                lease_ms=lease_ms,
                deliver=deliverer.start,
                on_doorbell=partial(ring, partition),
                clock=clock,
                health=health,
                rng=rng,
            )
            for partition in partitions
        ],
        timers=timers,
        schedulers=schedulers,
        janitors=janitors,
        topic_janitor=topic_janitor,
    )
    supervisor = Supervisor(
        store=store,
        consumer=consumer,
        loops=loops,
        holdings=holdings,
        health=health,
        clock=clock,
        shutdown_grace_ms=settings.shutdown_grace_ms,
    )
    return Worker(supervisor=supervisor, loops=loops, holdings=holdings, slots=slots, gate=gate, deliverer=deliverer)

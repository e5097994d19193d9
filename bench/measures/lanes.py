"""Queues and flow-control keys: what waiting in them costs, and what they cost publishing and delivering."""

from bench.backlog import Kind, keyed, lay, plain, queued
from bench.counting import Counter, Steps, same_commands, total
from bench.draining import WARM_UP, Drain, DrainRound
from bench.engine import TOKEN
from bench.plan import Bench
from bench.publishing import PublishLoad, PublishRound, beside
from bench.report import Budget, Figure, compared
from bench.rounds import undisturbed_pairs
from bench.tools.samples import BODY_BYTES, HEADER_BYTES, destination, publish_request

_CONNECTIONS = 64
_URL, _OTHER = destination(54321), destination(54322)
"""Nothing listens there."""
_FEW = 5
"""Lanes are so many times fewer in the store that a full one is compared with: still more than there are places."""
_MESSAGES_OF_FEW = 4
_IN_ONE_LANE = 1000
_PAUSED = "key-0"


async def measure(bench: Bench) -> list[Figure]:
    """What waits, then publishing, then delivering."""
    lanes = bench.sizes.lanes
    return [
        *await _waiting(bench, "in one host's lane", 1, plain(_URL), plain(_URL), _IN_ONE_LANE, limit_bytes=300),
        *await _waiting(
            bench,
            f"in {lanes:,} queues",
            lanes,
            queued(_URL, lanes),
            queued(_URL, lanes // _FEW),
            _MESSAGES_OF_FEW * lanes // _FEW,
            limit_bytes=300,
        ),
        *await _waiting(
            bench,
            f"for {lanes:,} keys",
            lanes,
            keyed(_URL, lanes, parallelism=1),
            keyed(_URL, lanes // _FEW, parallelism=1),
            _MESSAGES_OF_FEW * lanes // _FEW,
        ),
        *await _blocked(bench),
        *await _members(bench),
        *await _publishing(bench),
        *await _delivering(bench),
    ]


async def _waiting(
    bench: Bench, where: str, lanes: int, kind: Kind, kind_of_few: Kind, few: int, *, limit_bytes: int | None = None
) -> list[Figure]:
    """Commands with few messages waiting and with many, all places taken, and the memory of the many.

    What is told of memory is one message more in a lane that has messages already.
    """
    count = bench.sizes.waiting
    bench.say(f"lanes: {count} messages {where}")
    with bench.engine() as engine:
        async with bench.store(engine) as store:
            counter = Counter(engine, store, bench.sizes.counted)
            held = await counter.hold()

            async def steps(kind: Kind) -> Steps:
                in_line = await counter.in_line(kind, held)
                return in_line | _renamed(await counter.waiting(kind)) | await counter.heartbeats()

            await lay(store, few, kind_of_few)
            held += await counter.hold()
            await steps(kind_of_few)
            with_few = await steps(kind_of_few)
            await lay(store, lanes, kind)
            before = engine.used_memory()
            await lay(store, count, kind)
            per_message = (engine.used_memory() - before) / count
            held += await counter.hold()
            with_many = await steps(kind)
    return [
        _memory(where, per_message, count, limit_bytes),
        same_commands("lanes", f"messages {where}", with_many, with_few, count, f"{few:,} waiting"),
    ]


async def _blocked(bench: Bench) -> list[Figure]:
    """A key that is paused: what waits for it, and the messages of a host meanwhile."""
    count = bench.sizes.waiting
    kind, other = keyed(_URL, 1, parallelism=1), plain(_OTHER)
    bench.say(f"lanes: {count} messages for a paused key")
    with bench.engine() as engine:
        async with bench.store(engine) as store:
            counter = Counter(engine, store, bench.sizes.counted)
            await store.flow_controls.set_flow_control_paused(_PAUSED, True)

            async def steps() -> Steps:
                return await counter.alone(other) | _renamed(await counter.waiting(kind)) | await counter.heartbeats()

            await counter.hold()
            await lay(store, 1, kind)
            await steps()
            empty = await steps()
            before = engine.used_memory()
            await lay(store, count, kind)
            per_message = (engine.used_memory() - before) / count
            full = await steps()
    what = "a host's messages beside a paused key, and its own"
    return [
        _memory("for a paused key", per_message, count, None),
        same_commands("lanes", what, full, empty, count, "the first few messages of the key"),
    ]


def _renamed(steps: Steps) -> Steps:
    return {("publish to the end" if name == "publish" else name): commands for name, commands in steps.items()}


def _memory(where: str, per_message: float, count: int, limit_bytes: int | None) -> Figure:
    return Figure(
        measure="lanes",
        name=f"overhead of a message {where}",
        value=per_message - BODY_BYTES - HEADER_BYTES,
        unit="B",
        budget=None if limit_bytes is None else Budget(limit=limit_bytes, unit="B"),
        note=f"{count:,} waiting",
    )


async def _members(bench: Bench) -> list[Figure]:
    """Commands of messages that have limits, for whose lane nothing waits, beside those of a plain one."""
    figures: list[Figure] = []
    for what, kind in (
        ("a member of a queue", queued(_OTHER, 1)),
        ("a message with a key", keyed(_OTHER, 1, parallelism=10, rate=100_000, period_s=86_400)),
    ):
        with bench.engine() as engine:
            async with bench.store(engine) as store:
                counter = Counter(engine, store, bench.sizes.counted)
                await counter.hold()
                await counter.alone(kind)
                reference, steps = await counter.alone(plain(_URL)), await counter.alone(kind)
        figures.append(
            Figure(
                measure="lanes",
                name=f"commands for {what}",
                value=total(steps),
                unit="",
                reference=total(reference),
                ratio=total(reference) / total(steps),
                note=", ".join(f"{name} {sum(commands.values()):g}" for name, commands in steps.items())
                + "; reference: a plain message",
            )
        )
    return figures


async def _publishing(bench: Bench) -> list[Figure]:
    """Enqueues and publishes with a key beside plain publishes."""
    figures: list[Figure] = []
    control = "Upstash-Flow-Control-Key: bench\r\nUpstash-Flow-Control-Value: parallelism=10, rate=100, period=1\r\n"
    for name, path, options in (("enqueues", "enqueue/bench", ""), ("publishes with a key", "publish", control)):
        bench.say(f"lanes: {name}")
        with bench.engine() as engine:
            async with bench.nursery() as nursery:
                load = await PublishLoad.start(bench, engine, nursery)
                plain_request = publish_request(load.port, TOKEN, _URL)
                request = publish_request(load.port, TOKEN, _URL, options=options, path=path)

                async def pair(
                    load: PublishLoad = load, plain_request: bytes = plain_request, request: bytes = request
                ) -> tuple[PublishRound, PublishRound]:
                    reference = await load.run(plain_request, connections=_CONNECTIONS)
                    return await load.run(request, connections=_CONNECTIONS), reference

                pairs = await undisturbed_pairs(bench.sizes.rounds, pair, lambda one: one.usage)
        figures += beside("lanes", f"{name}, {_CONNECTIONS} connections", "plain publishes", pairs)
    return figures


async def _delivering(bench: Bench) -> list[Figure]:
    """One worker that drains lanes with limits, beside one that drains the lane of a host."""
    lanes, count = bench.sizes.lanes, bench.sizes.delivered
    with bench.engine() as engine:
        async with bench.nursery() as nursery, bench.store(engine) as store:
            drain = await Drain.start(engine, store, nursery)
            url = drain.url
            reference = plain(url)
            await drain.backlog(WARM_UP, reference)
            figures: list[Figure] = []
            for name, kind, messages in (
                ("from 100 queues of parallelism 1", queued(url, 100), count),
                ("from one queue of parallelism 1", queued(url, 1, prefix="single"), count // 10),
                (f"from {lanes:,} queues", queued(url, lanes, prefix="many"), count),
                ("of 100 keys of parallelism 10", keyed(url, 100, parallelism=10), count),
                ("of one key of parallelism 200", keyed(url, 1, parallelism=200, prefix="single"), count),
                (f"of {lanes:,} keys", keyed(url, lanes, parallelism=10, prefix="many"), count),
            ):
                bench.say(f"lanes: delivering {messages} messages {name}")

                async def pair(kind: Kind = kind, messages: int = messages) -> tuple[DrainRound, DrainRound]:
                    plain_round = await drain.backlog(messages, reference)
                    return await drain.backlog(messages, kind), plain_round

                pairs = await undisturbed_pairs(bench.sizes.rounds, pair, lambda one: one.usage)
                figures += _beside_plain(name, pairs)
            return figures


def _beside_plain(name: str, pairs: list[tuple[DrainRound, DrainRound]]) -> list[Figure]:
    rounds, others = [own for own, _ in pairs], [other for _, other in pairs]
    middle = sorted(rounds, key=lambda one: one.per_second)[len(rounds) // 2]
    redis_us, other_us = (sorted(one.redis_us for one in some)[len(some) // 2] for some in (rounds, others))
    return [
        compared(
            "lanes",
            f"deliveries {name}",
            "/s",
            [one.per_second for one in rounds],
            [one.per_second for one in others],
            note=f"reference: one host's lane; Redis {redis_us:.0f} µs a message, {other_us:.0f} for the reference; "
            f"{middle.usage}",
            is_disturbed=any(one.usage.is_disturbed for one in (*rounds, *others)),
        )
    ]

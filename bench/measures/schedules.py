"""Schedules: creating, keeping and listing many, and firing many that are due at once or one after the other."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations

from bench.backlog import lay, plain
from bench.counting import Counter, Steps, same_commands
from bench.draining import WARM_UP, Drain, DrainRound
from bench.engine import SIGNING_KEY, Engine
from bench.plan import Bench
from bench.processes import Stopwatch, Usage
from bench.report import BenchFailure, Figure, compared, percentile
from bench.rounds import calm, undisturbed
from bench.service import check_arrivals, drained, start_worker
from bench.tools.samples import BODY, BODY_BYTES, HEADER_BYTES, HEADERS, destination
from qstash_clone.domain.message import Message
from qstash_clone.domain.schedules import Schedule, StoredSchedule
from qstash_clone.domain.virtual_clock import MoveTo
from qstash_clone.ids import format_message_id
from qstash_clone.storage.codec import STORAGE_VERSION
from qstash_clone.storage.schedule_codec import encode_definition
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store

_NO_QUOTA = 10_000_000
_AT_ONCE = 64
_UNUSED_URL = destination(54321)
_WARM = 100
_HEAD_START_MS = 3000
_TICK_S = 0.001
_MINUTES = list(combinations(range(1, 60), 2))


async def measure(bench: Bench) -> list[Figure]:
    """First what waits, in the store alone, then firing."""
    return [
        *await _waiting(bench),
        *await _idle(bench),
        *await _due_at_once(bench),
        *await _due_one_by_one(bench),
    ]


def _schedule(number: int, url: str, cron: str) -> Schedule:
    message = Message(url=url, headers=HEADERS, caller_ip="127.0.0.1")
    return Schedule(id=f"scd_{number:020d}", cron=cron, message=message, body=BODY)


def far_away(number: int) -> str:
    """One of 40,320 expressions for half a year from now."""
    month = (datetime.now(UTC).month + 5) % 12 + 1
    return f"{number % 60} {number // 60 % 24} {number // 1440 % 28 + 1} {month} *"


async def _at_once(count: int, do: Callable[[int], Awaitable[object]]) -> float:
    """`do` each number, so many at a time as an api process has connections; returns how many a second."""
    numbers = iter(range(count))

    async def one_by_one() -> None:
        for number in numbers:
            await do(number)

    started_s = time.perf_counter()
    await asyncio.gather(*(one_by_one() for _ in range(_AT_ONCE)))
    return count / (time.perf_counter() - started_s)


async def _create(store: Store, count: int, first: int = 0) -> float:
    return await _at_once(
        count,
        lambda number: store.schedules.put_schedule(_schedule(first + number, _UNUSED_URL, far_away(first + number))),
    )


async def _waiting(bench: Bench) -> list[Figure]:
    """Schedules that are not due: creation, memory, what they cost messages, and how they are listed."""
    count = bench.sizes.schedules
    kind = plain(_UNUSED_URL)
    bench.say(f"schedules: {count} waiting")
    with bench.engine() as engine:
        async with bench.store(engine) as store:
            counter = Counter(engine, store, bench.sizes.counted)

            async def steps() -> Steps:
                await counter.hold()  # that is, the doorbell of the earliest instant
                return await counter.alone(kind) | await counter.heartbeats()

            await _create(store, _WARM)
            await steps()
            few = await steps()
            published = await _at_once(min(count, 10_000), lambda number: lay(store, 1, kind, delay_ms=86_400_000))
            before = engine.used_memory()
            created = await _create(store, count, _WARM)
            per_schedule = (engine.used_memory() - before) / count
            many = await steps()
            listed = await _list(store, count + _WARM)
    return [
        Figure(
            measure="schedules",
            name="schedules created",
            value=created,
            unit="/s",
            reference=published,
            ratio=created / published,
            note=f"by the store's code, {_AT_ONCE} at a time; reference: messages published so, which travel in groups",
        ),
        Figure(
            measure="schedules",
            name="overhead of a schedule",
            value=per_schedule - BODY_BYTES - HEADER_BYTES,
            unit="B",
            note=f"{count:,} schedules; {per_schedule:.0f} B in all, body {BODY_BYTES}, headers {HEADER_BYTES}",
        ),
        same_commands("schedules", "a message beside schedules", many, few, count, f"{_WARM} schedules"),
        *listed,
    ]


async def _list(store: Store, expected: int) -> list[Figure]:
    """All schedules in slices, while a ticker looks how long it has to wait for this process, and a ping for Redis."""
    held_ms, waited_ms = [0.0], [0.0]
    # Not by cancelling them: the client may take that for something else in the middle of a command.
    is_listed = asyncio.Event()

    async def tick() -> None:
        while not is_listed.is_set():
            started_s = time.perf_counter()
            await asyncio.sleep(_TICK_S)
            held_ms.append((time.perf_counter() - started_s - _TICK_S) * 1000)

    async def ping() -> None:
        while not is_listed.is_set():
            started_s = time.perf_counter()
            await store.commands.ask("PING")
            waited_ms.append((time.perf_counter() - started_s) * 1000)
            await asyncio.sleep(_TICK_S)

    others = [asyncio.create_task(tick()), asyncio.create_task(ping())]
    started_s = time.perf_counter()
    found = 0
    try:
        async for schedules in store.schedules.list_schedules():
            found += len(schedules)
    finally:
        is_listed.set()
        await asyncio.gather(*others)
    seconds = time.perf_counter() - started_s
    if found != expected:
        raise BenchFailure(f"schedules: {found} of {expected} were listed")
    return [
        Figure(
            measure="schedules", name="schedules listed", value=found / seconds, unit="/s", note=f"{found:,} of them"
        ),
        Figure(
            measure="schedules",
            name="longest wait for the process that lists",
            value=max(held_ms),
            unit="ms",
            note=f"a ping of Redis meanwhile: at most {max(waited_ms):.0f} ms, which includes that",
        ),
    ]


async def _idle(bench: Bench) -> list[Figure]:
    """Processor time of a worker and of Redis with nothing to do, with schedules waiting and without."""
    count, seconds = bench.sizes.schedules, bench.sizes.idle_s
    bench.say(f"schedules: an idle worker, {count} waiting")
    with bench.engine() as engine:
        async with bench.nursery() as nursery, bench.store(engine) as store:
            worker = await start_worker(nursery, engine)

            async def idle() -> tuple[float, float]:
                await calm()
                watch = Stopwatch({"worker": worker.pid, "redis": engine.pid})
                await asyncio.sleep(seconds)
                usage = watch.read()
                worker_s, redis_s = usage.processor_s["worker"], usage.processor_s["redis"]
                return worker_s / usage.wall_s * 100, redis_s / usage.wall_s * 100

            without = await idle()
            await _create(store, count)
            beside = await idle()
            worker.check()
    return [
        Figure(
            measure="schedules",
            name=f"{name} with schedules waiting and nothing to do",
            value=own,
            unit="% of a core",
            reference=reference,
            note=f"{count:,} schedules, {seconds:g} s; reference: without schedules",
        )
        for name, own, reference in zip(("worker", "Redis"), beside, without, strict=True)
    ]


async def _due_at_once(bench: Bench) -> list[Figure]:
    """Many schedules of one minute, beside as many delayed messages of one moment; the clock is moved there."""
    count = bench.sizes.due_schedules
    figures: list[Figure] = []
    for name, expression in (("one expression", alike), ("different expressions", different)):
        bench.say(f"schedules: {count} due at once, {name}")
        pairs: list[tuple[DrainRound, DrainRound]] = []
        for _ in range(bench.sizes.rounds):
            # A fresh store each time: what has fired once would be due again when the clock is moved on.
            with bench.engine() as engine:
                async with bench.nursery() as nursery, bench.store(engine) as store:
                    drain = await Drain.start(engine, store, nursery)
                    await drain.backlog(WARM_UP, plain(drain.url))
                    await calm()
                    delayed = await drain.run(lambda store=store, url=drain.url: _lay_delayed(store, count, url))
                    fired = await drain.run(
                        lambda store=store, url=drain.url, at=expression: _lay_schedules(store, count, url, at)
                    )
            pairs.append((fired, delayed))
        rounds, others = [own for own, _ in pairs], [other for _, other in pairs]
        middle = sorted(rounds, key=lambda one: one.per_second)[len(rounds) // 2]
        figures += [
            compared(
                "schedules",
                f"firings of {count:,} schedules due at once, {name}",
                "/s",
                [one.per_second for one in rounds],
                [one.per_second for one in others],
                note=f"to their arrival; reference: delayed messages due at once; {middle.usage}",
                is_disturbed=any(one.usage.is_disturbed for one in (*rounds, *others)),
            ),
            compared(
                "schedules",
                f"worker processor time, {name}",
                "µs",
                [one.sender_us for one in rounds],
                [one.sender_us for one in others],
                inverse=True,
                note="per firing and delivery; reference: per delayed message",
            ),
        ]
    return figures


def alike(number: int, day: datetime) -> str:
    """The beginning of a day."""
    return f"0 0 {day.day} {day.month} *"


def different(number: int, day: datetime) -> str:
    """One of 39,353 expressions whose first instant is the beginning of a day."""
    first, second = _MINUTES[number % len(_MINUTES)]
    return f"0,{first},{second} 0,{number // len(_MINUTES) % 23 + 1} {day.day} {day.month} *"


async def _lay_delayed(store: Store, count: int, url: str) -> list[str]:
    due_ms = (await store.virtual_clock.read_clock()).now_ms + 3_600_000
    message_ids = await lay(store, count, plain(url), not_before_ms=lambda number: due_ms)
    await store.virtual_clock.move_clock(MoveTo(due_ms))
    return message_ids


async def _lay_schedules(store: Store, count: int, url: str, expression: Callable[[int, datetime], str]) -> list[str]:
    """Schedules of the next day, and the ids that their messages will have."""
    now = datetime.fromtimestamp((await store.virtual_clock.read_clock()).now_ms / 1000, UTC)
    day = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    due_ms = round(day.timestamp() * 1000)
    message_ids: list[str] = []

    async def put(number: int) -> None:
        stored = await store.schedules.put_schedule(_schedule(number, url, expression(number, day)))
        if stored.next_fire_ms != due_ms:
            raise BenchFailure(f"schedules: {stored.schedule.cron} is not due at {due_ms}")
        message_ids.append(_id_of(store, stored, due_ms, url))

    await _at_once(count, put)
    await store.virtual_clock.move_clock(MoveTo(due_ms))
    return message_ids


def _id_of(store: Store, stored: StoredSchedule, instant_ms: int, url: str) -> str:
    (message_id,) = store.schedules.new_firing_ids(stored, instant_ms, [url])
    return format_message_id(message_id)


async def _due_one_by_one(bench: Bench) -> list[Figure]:
    """A schedule is due each millisecond; its lateness is arrival minus instant, by the clock that Redis reads too."""
    count = bench.sizes.due
    with bench.engine() as engine:
        async with bench.nursery() as nursery, bench.store(engine) as store:
            drain = await Drain.start(engine, store, nursery)

            async def once() -> tuple[list[float], Usage]:
                await drain.receiver.ask("reset", timeout_s=5)
                first_ms = time.time_ns() // 1_000_000 + _HEAD_START_MS + count // 2
                due_ms = await _put_at(engine, store, [first_ms + number for number in range(count)], drain.url)
                watch = Stopwatch({"worker": drain.worker.pid, "redis": engine.pid})
                patience_s = (first_ms + count) / 1000 - time.time() + 20
                await drain.receiver.ask(
                    "expect", name="fast", count=count, patience_s=patience_s, timeout_s=patience_s + 5
                )
                usage = watch.read()
                await drained(engine, drain.worker)
                collected = await drain.receiver.ask("collect", name="fast", key=SIGNING_KEY, timeout_s=30)
                check_arrivals(list(due_ms), collected, "schedules")
                arrivals = zip(collected["message_ids"], collected["arrived_ns"], strict=True)
                return [arrived_ns / 1e6 - due_ms[message_id] for message_id, arrived_ns in arrivals], usage

            bench.say(f"schedules: {count}, a thousand due each second")
            lateness, usage = await undisturbed(once)
    return [
        Figure(
            measure="schedules",
            name=f"lateness at 1,000 due/s, p{share * 100:.0f}",
            value=percentile(lateness, share),
            unit="ms",
            is_disturbed=usage.is_disturbed,
            note=str(usage) if share < 1 else f"earliest {min(lateness):.2f} ms",
        )
        for share in (0.5, 0.99, 1)
    ]


async def _put_at(engine: Engine, store: Store, instants_ms: Sequence[int], url: str) -> dict[str, int]:
    """Schedules whose first instants are given, for expressions know no seconds; returns when each message is due."""
    script, keys = Script("put_schedule"), engine.keys
    await store.commands.ask("SCRIPT", "LOAD", script.text)
    schedules = [_schedule(number, url, far_away(number)) for number in range(len(instants_ms))]
    replies = await store.commands.ask_all(
        [
            (
                *("EVALSHA", script.digest, 4, keys.meta, keys.schedules, keys.catalogue, keys.schedule(schedule.id)),
                *(
                    STORAGE_VERSION,
                    schedule.id,
                    _NO_QUOTA,
                    0,
                    instant_ms,
                    0,
                    encode_definition(schedule),
                    schedule.body,
                ),
            )
            for schedule, instant_ms in zip(schedules, instants_ms, strict=True)
        ]
    )
    due_ms: dict[str, int] = {}
    for schedule, instant_ms, (word, created_ms, revision) in zip(schedules, instants_ms, replies, strict=True):
        if word != b"ok":
            raise BenchFailure(f"schedules: the store answered {word!r}")
        stored = StoredSchedule(schedule=schedule, created_ms=created_ms, revision=revision, next_fire_ms=instant_ms)
        due_ms[_id_of(store, stored, instant_ms, url)] = instant_ms
    return due_ms

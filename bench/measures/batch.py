"""Many messages in one request: a batch, and a fan-out to a URL group, beside requests that carry one message each."""

from bench.engine import TOKEN
from bench.plan import Bench
from bench.publishing import PublishLoad, PublishRound, beside
from bench.report import Figure
from bench.rounds import undisturbed_pairs
from bench.tools.samples import batch_request, destination, publish_request
from qstash_clone.domain.url_groups import Endpoint, UrlGroup

TOGETHER = 100
"""Messages of one request."""
FLOOR = 5.0
_GROUP = "bench"
_UNUSED_PORT = 54321
"""Nothing is delivered in this measure."""
_URL = destination(_UNUSED_PORT)
_CASES = (
    ("batches", None, 1, FLOOR),
    ("batches", None, 64, None),
    ("publishes to a group", _GROUP, 1, None),
    ("publishes to a group", _GROUP, 64, None),
)


async def measure(bench: Bench) -> list[Figure]:
    """As many connections for both, each sending its next request when the last one was answered.

    One connection shows what a client gains that sends a hundred messages at once instead of one after the other. With
    64 both keep a process busy, and what is compared is the work for a message.
    """
    figures: list[Figure] = []
    for name, group, connections, floor in _CASES:
        figures += await _compare(bench, name, group, connections, floor)
    return figures


async def _compare(bench: Bench, name: str, group: str | None, connections: int, floor: float | None) -> list[Figure]:
    at = f"{connections} connection{'s' if connections > 1 else ''}"
    bench.say(f"batch: {name}, {at}")
    with bench.engine() as engine:
        async with bench.nursery() as nursery, bench.store(engine) as store:
            await store.url_groups.change_url_group(_GROUP, lambda _, now_ms: _group(now_ms))
            load = await PublishLoad.start(bench, engine, nursery)
            single = publish_request(load.port, TOKEN, _URL)
            if group is None:
                request = batch_request(load.port, TOKEN, _URL, TOGETHER)
            else:
                request = publish_request(load.port, TOKEN, group)

            async def pair() -> tuple[PublishRound, PublishRound]:
                reference = await load.run(single, connections=connections)
                return await load.run(request, connections=connections, messages=TOGETHER), reference

            pairs = await undisturbed_pairs(bench.sizes.rounds, pair, lambda one: one.usage)
    title = f"messages in {name} of {TOGETHER}, {at}"
    return beside("batch", title, f"single publishes, {at}", pairs, floor=floor)


def _group(now_ms: int) -> UrlGroup:
    endpoints = tuple(Endpoint(url=f"{_URL[:-3]}{number:03}") for number in range(TOGETHER))
    return UrlGroup(name=_GROUP, created_ms=now_ms, updated_ms=now_ms, endpoints=endpoints)

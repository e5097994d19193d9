import asyncio
import time

import pytest

from qstash_clone.errors import Forbidden, InvalidRequest, NotFound, QuotaExceeded, StorageUnavailable
from qstash_clone.storage.store import Store
from qstash_clone.topics.consuming import LOOK_AGAIN_S, Consumer
from qstash_clone.topics.groups import InstanceSettings, encode_group
from qstash_clone.topics.reading import MAX_RACES, TopicOffset
from qstash_clone.topics.records import Place, TopicConfig
from tests.support.eventually import eventually
from tests.topics.conftest import BY_HAND, Scene, call, present, values

LATEST = InstanceSettings()
FIRST = [Place("orders", 0)]


async def committed(consumer: Consumer, *places: Place, group: str = "g", instance: str = "a") -> list[int]:
    return [one.offset for one in await consumer.committed(group, instance, places or FIRST)]


def anything(_topic: str) -> None:
    """The caller may do everything with all topics."""


async def owned(consumer: Consumer, topic: str = "orders") -> dict[str, list[int]]:
    return {member.name: member.owned.get(topic, []) for member in await consumer.list_members()}


async def test_the_first_call_joins_and_answers(scene: Scene) -> None:
    await scene.make_topic()
    await scene.append("a", "b")
    consumer = scene.consumer()
    assert values(await consumer.consume(call(), present())) == ["a", "b"]
    assert values(await consumer.consume(call(), present())) == []
    assert await owned(consumer) == {"a": [0]}


async def test_latest_starts_where_the_log_ended_at_the_first_call(scene: Scene) -> None:
    await scene.make_topic()
    await scene.append("before")
    consumer = scene.consumer()
    assert await consumer.consume(call(settings=LATEST), present()) == []
    await scene.append("between")
    assert values(await consumer.consume(call(settings=LATEST), present())) == ["between"]


async def test_records_come_in_the_order_of_the_request(scene: Scene) -> None:
    await scene.make_topic("orders", 2)
    await scene.make_topic("audit")
    await scene.append("o1", partition=1)
    await scene.append("o0", partition=0)
    await scene.append("a0", topic="audit")
    found = await scene.consumer().consume(call("a", "orders", "audit"), present())
    assert values(found) == ["o0", "o1", "a0"]


async def test_a_new_record_ends_the_wait(scene: Scene) -> None:
    await scene.make_topic()
    consumer = scene.consumer()
    consuming = asyncio.ensure_future(consumer.consume(call(timeout_ms=60_000), present()))
    await eventually(lambda: scene.groups.saves == 1)
    await scene.append("new")
    assert values(await consuming) == ["new"]


async def test_idle_turns_write_nothing(scene: Scene) -> None:
    await scene.make_topic()
    consumer = scene.consumer()
    await consumer.consume(call(), present())
    saves = scene.groups.saves
    started_s = time.monotonic()
    assert await consumer.consume(call(timeout_ms=int(LOOK_AGAIN_S * 1000) + 100), present()) == []
    assert time.monotonic() - started_s >= LOOK_AGAIN_S + 0.1
    assert scene.groups.saves == saves


async def test_instances_share_the_partitions_and_the_rest_waits(scene: Scene) -> None:
    await scene.make_topic("orders", 2)
    await scene.make_topic("room")
    for partition in range(2):
        await scene.append(f"p{partition}", partition=partition)
    consumer, other = scene.consumer(), scene.consumer()
    assert values(await consumer.consume(call("a", settings=BY_HAND), present())) == ["p0", "p1"]
    assert values(await other.consume(call("b", settings=BY_HAND), present())) == ["p1"]
    assert await other.consume(call("c", settings=BY_HAND), present()) == []
    assert await owned(consumer) == {"a": [0], "b": [1], "c": []}


async def test_a_deleted_instance_leaves_everything_to_the_other(scene: Scene) -> None:
    await scene.make_topic("orders", 4)
    consumer = scene.consumer()
    await consumer.consume(call("a"), present())
    await consumer.consume(call("b"), present())
    assert await owned(consumer) == {"a": [0, 1], "b": [2, 3]}
    await scene.append("x", partition=0)
    assert values(await consumer.consume(call("a"), present())) == ["x"]
    await consumer.delete("g", "a", anything)
    assert await owned(consumer) == {"b": [0, 1, 2, 3]}
    await scene.append("y", partition=0)
    assert values(await consumer.consume(call("b"), present())) == ["y"]


async def test_a_deleted_instance_does_not_come_back_through_a_call_that_waits(scene: Scene) -> None:
    await scene.make_topic()
    consumer = scene.consumer()
    await consumer.consume(call(), present())
    consuming = asyncio.ensure_future(consumer.consume(call(timeout_ms=60_000), present()))
    await eventually(lambda: scene.waits == 1)
    await consumer.delete("g", "a", anything)
    await scene.append("for nobody")
    assert await consuming == []
    assert await owned(consumer) == {}


async def test_a_call_that_waits_gets_partitions_that_become_free(scene: Scene) -> None:
    await scene.make_topic("orders", 2)
    consumer, other = scene.consumer(), scene.consumer()
    await consumer.consume(call("a"), present())
    await other.consume(call("b"), present())
    consuming = asyncio.ensure_future(consumer.consume(call("a", timeout_ms=60_000), present()))
    await eventually(lambda: scene.waits == 1)
    await other.delete("g", "b", anything)
    await scene.append("was b's", partition=1)
    assert values(await consuming) == ["was b's"]


async def test_without_a_commit_a_new_instance_gets_the_same_again(scene: Scene) -> None:
    await scene.make_topic()
    await scene.append("a", "b")
    consumer = scene.consumer()
    assert values(await consumer.consume(call(settings=BY_HAND), present())) == ["a", "b"]
    assert await committed(consumer) == [-1]
    await consumer.delete("g", "a", anything)
    assert values(await consumer.consume(call(settings=BY_HAND), present())) == ["a", "b"]
    await consumer.commit("g", "a", [], anything)
    assert await committed(consumer) == [2]
    await consumer.delete("g", "a", anything)
    assert await consumer.consume(call(settings=BY_HAND), present()) == []


async def test_an_offset_is_committed_as_it_is(scene: Scene) -> None:
    await scene.make_topic("orders", 2)
    await scene.append("a", "b", "c")
    consumer = scene.consumer()
    await consumer.consume(call(settings=BY_HAND), present())
    await consumer.commit("g", "a", [TopicOffset("orders", 0, 1), TopicOffset("orders", 1, 9)], anything)
    assert await committed(consumer, Place("orders", 1), Place("orders", 0)) == [9, 1]
    await scene.append("d")
    assert values(await consumer.consume(call(), present())) == ["d"]
    await consumer.delete("g", "a", anything)
    assert values(await consumer.consume(call(settings=BY_HAND), present())) == ["b", "c", "d"]


async def test_each_call_commits_what_earlier_ones_got(scene: Scene) -> None:
    await scene.make_topic()
    await scene.append("a")
    consumer = scene.consumer()
    await consumer.consume(call(), present())
    assert await committed(consumer) == [0]
    scene.groups.ahead_ms += 5_000
    await scene.append("b")
    assert values(await consumer.consume(call(), present())) == ["b"]
    assert await committed(consumer) == [1]
    await consumer.consume(call(), present())
    assert await committed(consumer) == [1]
    await consumer.delete("g", "a", anything)
    assert await committed(consumer) == [2]


async def test_silence_closes_an_instance_and_calls_keep_it(scene: Scene) -> None:
    await scene.make_topic("orders", 2)
    consumer = scene.consumer()
    await consumer.consume(call("a", settings=InstanceSettings(session_timeout_ms=10_000)), present())
    await consumer.consume(call("b"), present())
    for _ in range(3):
        scene.groups.ahead_ms += 9_000
        await consumer.committed("g", "a", FIRST)
        assert await owned(consumer) == {"a": [0], "b": [1]}
    for _ in range(3):
        scene.groups.ahead_ms += 9_000
        await consumer.commit("g", "a", [], anything)
    scene.groups.ahead_ms += 11_001
    assert await owned(consumer) == {"b": [1]}
    with pytest.raises(NotFound, match="consumer instance a of group g does not exist"):
        await consumer.commit("g", "a", [], anything)
    await consumer.consume(call("b"), present())
    assert await owned(consumer) == {"b": [0, 1]}


async def test_a_call_that_waits_is_a_sign_of_life(scene: Scene) -> None:
    await scene.make_topic()
    consumer = scene.consumer()
    departed = asyncio.Event()
    settings = InstanceSettings(session_timeout_ms=10_000)
    consuming = asyncio.ensure_future(consumer.consume(call(settings=settings, timeout_ms=60_000), departed))
    await eventually(lambda: scene.groups.saves == 1)
    scene.groups.ahead_ms += 9_000
    await eventually(lambda: scene.groups.saves == 2)
    departed.set()
    assert await consuming == []
    scene.groups.ahead_ms += 9_000
    assert await owned(consumer) == {"a": [0]}


async def test_two_calls_of_one_instance_get_different_records(scene: Scene) -> None:
    await scene.make_topic()
    await scene.append(*map(str, range(100)))
    consumers = [scene.consumer(max_records=7) for _ in range(4)]
    found: list[str] = []
    while len(found) < 100:
        batches = await asyncio.gather(*(one.consume(call(), present()) for one in consumers for _ in range(3)))
        assert any(batches)
        found += [value for batch in batches for value in values(batch)]
    assert sorted(found, key=int) == [str(number) for number in range(100)]


async def test_many_instances_of_several_processes_lose_and_repeat_nothing(scene: Scene) -> None:
    await scene.make_topic("orders", 6)
    consumers = [scene.consumer(max_records=5) for _ in range(3)]
    names = [f"i{number}" for number in range(6)]
    for name in names:
        await consumers[0].consume(call(name), present())
    expected = {f"{partition}-{number}" for partition in range(6) for number in range(40)}
    found: list[str] = []

    async def produce() -> None:
        for number in range(40):
            for partition in range(6):
                await scene.append(f"{partition}-{number}", partition=partition)

    async def consume(at: int) -> None:
        while len(found) < len(expected):
            found.extend(values(await consumers[at % 3].consume(call(names[at], timeout_ms=50), present())))

    await asyncio.gather(produce(), *(consume(at) for at in range(6)))
    assert sorted(found) == sorted(expected)


async def test_who_was_not_fast_enough_starts_over_and_hands_out_nothing_that_is_not_its(scene: Scene) -> None:
    await scene.make_topic("orders", 2)
    await scene.append("p0", partition=0)
    await scene.append("p1", partition=1)
    other = scene.consumer()

    async def another_joins() -> None:
        assert values(await other.consume(call("b"), present())) == ["p0", "p1"]

    scene.groups.before_save = another_joins
    # By then `b` owned both and has left partition 0 with its commit.
    assert await scene.consumer().consume(call("a"), present()) == []
    assert await owned(other) == {"a": [0], "b": [1]}


async def test_a_group_that_changes_all_the_time_is_answered_as_such(scene: Scene) -> None:
    await scene.make_topic()
    await scene.append("a")

    async def lose() -> None:
        state = await scene.groups.load_group("g")
        other = await scene.group()
        other.epoch += 1
        scene.groups.before_save = None
        assert await scene.groups.save_group("g", state.revision, encode_group(other), keep_ms=10_000, live_ms=0)
        scene.groups.before_save = lose

    scene.groups.before_save = lose
    with pytest.raises(StorageUnavailable, match="consumer group g"):
        await scene.consumer().consume(call(), present())
    assert (await scene.group()).epoch == MAX_RACES
    scene.groups.before_save = None
    assert values(await scene.consumer().consume(call(), present())) == ["a"]


async def test_who_departs_while_waiting_gets_nothing_and_leaves_nothing_behind(scene: Scene) -> None:
    await scene.make_topic()
    consumer = scene.consumer()
    departed = asyncio.Event()
    before = asyncio.all_tasks()
    consuming = asyncio.ensure_future(consumer.consume(call(timeout_ms=60_000), departed))
    await eventually(lambda: scene.groups.saves == 1)
    departed.set()
    assert await consuming == []
    await eventually(lambda: asyncio.all_tasks() <= before)
    await scene.append("a")
    assert values(await consumer.consume(call(), present())) == ["a"]


async def test_who_departed_before_the_records_were_handed_out_leaves_them(scene: Scene) -> None:
    await scene.make_topic()
    await scene.append("a")
    consumer = scene.consumer()
    departed = asyncio.Event()
    departed.set()
    assert await consumer.consume(call(), departed) == []
    assert await owned(consumer) == {}
    assert values(await consumer.consume(call(), present())) == ["a"]


async def test_what_was_handed_out_to_nobody_is_taken_back(scene: Scene) -> None:
    await scene.make_topic()
    await scene.append("a")
    consumer = scene.consumer()
    departed = asyncio.Event()
    scene.groups.after_save = departed.set
    assert await consumer.consume(call(), departed) == []
    assert values(await consumer.consume(call(), present())) == ["a"]


async def test_an_unknown_topic_does_not_make_an_instance(scene: Scene) -> None:
    await scene.make_topic()
    consumer = scene.consumer()
    with pytest.raises(NotFound, match="topic nowhere does not exist"):
        await consumer.consume(call("a", "orders", "nowhere"), present())
    assert await scene.groups.list_groups() == []
    await consumer.consume(call("a"), present())
    with pytest.raises(NotFound):
        await consumer.consume(call("a", "nowhere"), present())
    assert await owned(consumer) == {"a": [0]}


async def test_there_are_at_most_as_many_instances_as_partitions(scene: Scene) -> None:
    await scene.make_topic("orders", 1)
    await scene.make_topic("audit", 1)
    consumer = scene.consumer()
    await consumer.consume(call("a", group="g"), present())
    await consumer.consume(call("a", group="h"), present())
    with pytest.raises(QuotaExceeded, match="as many consumer instances as partitions already, 2"):
        await consumer.consume(call("b", group="g"), present())
    with pytest.raises(QuotaExceeded):
        await consumer.consume(call("a", group="i"), present())
    await consumer.consume(call("a", group="g"), present())
    await consumer.delete("h", "a", anything)
    await consumer.consume(call("b", group="g"), present())


async def test_with_none_nothing_says_where_to_begin_until_a_commit_does(scene: Scene) -> None:
    await scene.make_topic()
    await scene.append("a", "b")
    consumer = scene.consumer()
    settings = InstanceSettings(offset_reset="none")
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="no offset stored for partition 0 of topic orders"):
            await consumer.consume(call(settings=settings), present())
    await consumer.commit("g", "a", [TopicOffset("orders", 0, 1)], anything)
    assert values(await consumer.consume(call(settings=settings), present())) == ["b"]


async def test_a_topic_that_was_made_anew_starts_without_commits(scene: Scene) -> None:
    await scene.make_topic()
    await scene.append("a", "b")
    consumer = scene.consumer()
    await consumer.consume(call(), present())
    await consumer.commit("g", "a", [], anything)
    await scene.topics.delete_topic("orders")
    with pytest.raises(NotFound):
        await consumer.consume(call(), present())
    await scene.make_topic()
    assert await committed(consumer) == [-1]
    await scene.append("new")
    assert values(await consumer.consume(call(), present())) == ["new"]


async def test_a_process_that_knows_the_topic_before_does_not_cost_the_new_one_its_commits(
    scene: Scene, store: Store
) -> None:
    await scene.make_topic()
    old = await scene.topics.get_topic("orders")
    await scene.topics.delete_topic("orders")
    await scene.make_topic()
    await scene.append("a", "b")
    consumer = scene.consumer()
    await consumer.consume(call(), present())
    await consumer.commit("g", "a", [], anything)
    store.topics._catalogue._known["orders"] = (old, time.monotonic() + 60)  # pyright: ignore
    scene.groups.ahead_ms += 60_000
    assert await consumer.consume(call(), present()) == []
    store.topics._catalogue.forget("orders")  # pyright: ignore
    assert await committed(consumer) == [2]


async def test_a_grown_topic_is_shared_out_anew(scene: Scene) -> None:
    await scene.make_topic()
    consumer = scene.consumer()
    await consumer.consume(call("a"), present())
    await scene.topics.change_topic("orders", TopicConfig(partitions=3))
    await scene.append("x", partition=2)
    assert values(await consumer.consume(call("a"), present())) == ["x"]
    assert await owned(consumer) == {"a": [0, 1, 2]}


async def test_a_position_behind_the_end_of_its_log_begins_anew(scene: Scene) -> None:
    """The store has lost records that it had acknowledged: there is nothing better than what is there."""
    await scene.make_topic()
    await scene.append("a", "b")
    consumer = scene.consumer()
    await consumer.consume(call(settings=BY_HAND), present())
    group = await scene.group()
    for place, (epoch, _) in group.owned("a").items():
        group.hand_out("a", place, epoch, 7)
    state = await scene.groups.load_group("g")
    assert await scene.groups.save_group("g", state.revision, encode_group(group), keep_ms=60_000, live_ms=60_000)
    assert values(await consumer.consume(call(), present())) == ["a", "b"]


async def test_a_changed_subscription_replaces_the_old_one(scene: Scene) -> None:
    await scene.make_topic("orders")
    await scene.make_topic("audit")
    consumer = scene.consumer()
    await consumer.consume(call("a", "orders"), present())
    await consumer.consume(call("a", "audit"), present())
    assert await owned(consumer, "orders") == {"a": []}
    assert await owned(consumer, "audit") == {"a": [0]}


async def test_a_call_that_waits_does_not_bring_its_subscription_back(scene: Scene) -> None:
    await scene.make_topic("orders")
    await scene.make_topic("audit")
    consumer = scene.consumer()
    departed = asyncio.Event()
    consuming = asyncio.ensure_future(consumer.consume(call("a", "orders", timeout_ms=60_000), departed))
    await eventually(lambda: scene.groups.saves == 1)
    await consumer.consume(call("a", "audit"), present())
    await scene.append("x", topic="audit")
    await scene.append("y", topic="orders")
    saves = scene.groups.saves
    await asyncio.wait([consuming], timeout=LOOK_AGAIN_S * 1.5)
    assert not consuming.done()
    assert scene.groups.saves == saves
    departed.set()
    assert await consuming == []
    assert values(await consumer.consume(call("a", "audit"), present())) == ["x"]


async def test_commits_are_for_what_exists_and_for_whom_it_is_allowed(scene: Scene) -> None:
    await scene.make_topic()
    consumer = scene.consumer()
    await consumer.consume(call(), present())

    def refuse(topic: str) -> None:
        raise Forbidden(f"not for {topic}")

    before = await scene.group()
    with pytest.raises(NotFound):
        await consumer.commit("g", "b", [], anything)
    with pytest.raises(NotFound):
        await consumer.commit("g", "a", [TopicOffset("nowhere", 0, 1)], anything)
    with pytest.raises(NotFound):
        await consumer.commit("g", "a", [TopicOffset("orders", 1, 1)], anything)
    for offsets in ([], [TopicOffset("orders", 0, 1)]):
        with pytest.raises(Forbidden, match="orders"):
            await consumer.commit("g", "a", offsets, refuse)
    with pytest.raises(Forbidden):
        await consumer.delete("g", "a", refuse)
    with pytest.raises(NotFound):
        await consumer.delete("g", "b", anything)
    assert await scene.group() == before


async def test_commits_outlive_the_last_instance_for_a_week(scene: Scene) -> None:
    await scene.make_topic()
    consumer = scene.consumer()
    await consumer.consume(call(), present())
    await consumer.delete("g", "a", anything)
    assert await committed(consumer) == [0]
    assert await consumer.list_members() == []
    assert (await scene.groups.list_groups(), await scene.groups.list_live_groups()) == (["g"], [])
    assert scene.groups.kept_ms == 7 * 24 * 3600 * 1000

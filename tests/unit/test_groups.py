from collections.abc import Mapping

import pytest

from qstash_clone.errors import StorageError
from qstash_clone.topics.groups import Group, InstanceSettings, decode_group, encode_group
from qstash_clone.topics.records import Bounds, Place, Topic, TopicConfig

DAY_MS = 24 * 3600 * 1000
EARLIEST = InstanceSettings(offset_reset="earliest")
TEN = Bounds(0, 10)
BY_HAND = InstanceSettings(offset_reset="earliest", auto_commit=False)


def topic(name: str = "orders", partitions: int = 4, generation: str = "g1") -> Topic:
    return Topic(name=name, generation=generation, created_ms=1, config=TopicConfig(partitions=partitions))


def topics(*known: Topic) -> Mapping[str, Topic]:
    return {one.name: one for one in known}


def join(group: Group, name: str, *known: Topic, settings: InstanceSettings = EARLIEST, now_ms: int = 0) -> None:
    """An instance subscribes to topics that all have records 0 to 9, and everybody gets a share."""
    group.subscribe(name, tuple(one.name for one in known), settings, now_ms)
    settle(group, *known)


def settle(group: Group, *known: Topic, bounds: Bounds = TEN) -> None:
    group.assign(topics(*known))
    for place in group.unplaced():
        group.start(place, bounds)


def numbers(group: Group, name: str, of: str = "orders") -> list[int]:
    return [place.partition for place in group.owned(name) if place.topic == of]


def hand_out(group: Group, name: str, number: int, position: int, of: str = "orders") -> None:
    place = Place(of, number)
    assert group.hand_out(name, place, group.owned(name)[place].epoch, position)


def position(group: Group, name: str, number: int) -> int | None:
    return group.owned(name)[Place("orders", number)].position


class TestAssignment:
    @pytest.mark.parametrize(
        ("partitions", "names", "expected"),
        [
            (4, ["a"], {"a": [0, 1, 2, 3]}),
            (4, ["b", "a"], {"a": [0, 1], "b": [2, 3]}),
            (5, ["a", "b", "c"], {"a": [0, 1], "b": [2, 3], "c": [4]}),
            (2, ["a", "b", "c"], {"a": [0], "b": [1], "c": []}),
            (1, ["b", "a"], {"a": [0], "b": []}),
        ],
    )
    def test_ranges_follow_the_names(self, partitions: int, names: list[str], expected: dict[str, list[int]]) -> None:
        group = Group()
        for name in names:
            join(group, name, topic(partitions=partitions))
        assert {name: numbers(group, name) for name in sorted(names)} == expected

    def test_each_topic_is_divided_among_its_own_subscribers(self) -> None:
        group = Group()
        orders, audit = topic("orders"), topic("audit", 3)
        group.subscribe("a", ("orders",), EARLIEST, 0)
        group.subscribe("b", ("orders", "audit"), EARLIEST, 0)
        settle(group, orders, audit)
        assert numbers(group, "a") == [0, 1]
        assert numbers(group, "b") == [2, 3]
        assert numbers(group, "b", "audit") == [0, 1, 2]

    def test_a_new_set_of_topics_replaces_the_old_one(self) -> None:
        group = Group()
        join(group, "a", topic("orders"), topic("audit"))
        group.subscribe("a", ("audit",), EARLIEST, 0)
        settle(group, topic("orders"), topic("audit"))
        assert numbers(group, "a") == []
        assert numbers(group, "a", "audit") == [0, 1, 2, 3]

    def test_a_grown_topic_is_divided_anew(self) -> None:
        group = Group()
        join(group, "a", topic(partitions=2))
        join(group, "b", topic(partitions=2))
        settle(group, topic(partitions=6))
        assert numbers(group, "a") == [0, 1, 2]
        assert numbers(group, "b") == [3, 4, 5]

    def test_partitions_that_somebody_does_not_know_of_yet_stay_with_their_owners(self) -> None:
        group = Group()
        join(group, "a", topic(partitions=6))
        before = encode_group(group)
        settle(group, topic(partitions=2))
        assert encode_group(group) == before

    def test_what_stays_with_its_owner_keeps_its_position_and_epoch(self) -> None:
        group = Group()
        join(group, "a", topic())
        hand_out(group, "a", 0, 7)
        before = group.owned("a")[Place("orders", 0)]
        join(group, "b", topic())
        assert group.owned("a")[Place("orders", 0)] == before

    def test_settings_of_a_live_instance_stay(self) -> None:
        group = Group()
        join(group, "a", topic(), settings=BY_HAND)
        join(group, "a", topic(), settings=EARLIEST)
        assert group.instances["a"].settings == BY_HAND

    def test_a_topic_without_subscribers_and_commits_is_forgotten(self) -> None:
        group = Group()
        join(group, "a", topic(), settings=BY_HAND)
        group.close("a")
        settle(group, topic())
        assert not group.topics


class TestStart:
    @pytest.mark.parametrize(("reset", "expected"), [("earliest", 3), ("latest", 10)])
    def test_without_a_commit_the_settings_decide(self, reset: str, expected: int) -> None:
        group = Group()
        group.subscribe("a", ("orders",), InstanceSettings(offset_reset=reset), 0)  # pyright: ignore[reportArgumentType]
        settle(group, topic(), bounds=Bounds(3, 10))
        assert position(group, "a", 0) == expected

    @pytest.mark.parametrize("committed", [3, 5, 10])
    def test_a_commit_within_the_log_decides(self, committed: int) -> None:
        group = Group()
        group.commit(topic(), 0, committed)
        group.subscribe("a", ("orders",), InstanceSettings(), 0)
        settle(group, topic(), bounds=Bounds(3, 10))
        assert position(group, "a", 0) == committed
        assert group.committed(topic(), 0) == committed

    @pytest.mark.parametrize("committed", [2, 11])
    @pytest.mark.parametrize(("settings", "then"), [(EARLIEST, 3), (BY_HAND, None)])
    def test_a_commit_outside_the_log_is_as_none(
        self, committed: int, settings: InstanceSettings, then: int | None
    ) -> None:
        group = Group()
        group.commit(topic(), 0, committed)
        group.subscribe("a", ("orders",), settings, 0)
        settle(group, topic(), bounds=Bounds(3, 10))
        assert position(group, "a", 0) == 3
        assert group.committed(topic(), 0) == (committed if then is None else then)

    def test_the_start_is_committed_at_once_with_auto_commit_only(self) -> None:
        group = Group()
        group.subscribe("a", ("orders",), EARLIEST, 0)
        group.subscribe("b", ("audit",), BY_HAND, 0)
        settle(group, topic("orders"), topic("audit"))
        assert group.committed(topic("orders"), 2) == 0
        assert group.committed(topic("audit"), 2) is None

    def test_with_none_there_is_no_start_until_somebody_commits(self) -> None:
        group = Group()
        join(group, "a", topic(partitions=1), settings=InstanceSettings(offset_reset="none"))
        assert position(group, "a", 0) is None
        assert group.unplaced() == [Place("orders", 0)]
        group.commit(topic(partitions=1), 0, 4)
        settle(group, topic(partitions=1))
        assert position(group, "a", 0) == 4

    def test_a_partition_without_an_owner_does_not_start(self) -> None:
        group = Group()
        group.commit(topic(), 0, 4)
        before = encode_group(group)
        group.start(Place("orders", 0), Bounds(0, 10))
        group.start(Place("orders", 9), Bounds(0, 10))
        assert encode_group(group) == before


class TestHandingOut:
    def test_only_the_owner_gets_records(self) -> None:
        group = Group()
        join(group, "a", topic())
        join(group, "b", topic())
        place = Place("orders", 3)
        epoch = group.owned("b")[place].epoch
        assert not group.hand_out("a", place, epoch, 5)
        assert group.hand_out("b", place, epoch, 5)
        assert position(group, "b", 3) == 5

    def test_who_lost_a_partition_and_has_it_again_gets_nothing_for_the_first_time(self) -> None:
        group = Group()
        join(group, "a", topic())
        place = Place("orders", 3)
        epoch = group.owned("a")[place].epoch
        join(group, "b", topic())
        group.close("b")
        settle(group, topic())
        assert not group.hand_out("a", place, epoch, 5)
        assert not group.hand_out("a", Place("nowhere", 3), epoch, 5)

    def test_what_reached_nobody_is_taken_back(self) -> None:
        group = Group()
        join(group, "a", topic())
        place = Place("orders", 0)
        epoch = group.owned("a")[place].epoch
        hand_out(group, "a", 0, 5)
        assert group.take_back("a", place, epoch, 2, 5)
        assert position(group, "a", 0) == 2

    def test_it_is_not_taken_back_when_more_was_handed_out_or_the_owner_changed(self) -> None:
        group = Group()
        join(group, "a", topic())
        place = Place("orders", 3)
        epoch = group.owned("a")[place].epoch
        hand_out(group, "a", 3, 5)
        hand_out(group, "a", 3, 8)
        assert not group.take_back("a", place, epoch, 0, 5)
        join(group, "b", topic())
        assert not group.take_back("a", place, epoch, 5, 8)
        assert position(group, "b", 3) == 8


class TestAutoCommit:
    def test_it_commits_what_was_handed_out_before_the_call_arrived(self) -> None:
        group = Group()
        join(group, "a", topic())
        hand_out(group, "a", 0, 3)
        arrived = group.owned("a")
        hand_out(group, "a", 0, 6)
        group.auto_commit("a", arrived, 4_999)
        assert group.committed(topic(), 0) == 0
        group.auto_commit("a", arrived, 5_000)
        assert group.committed(topic(), 0) == 3

    def test_the_interval_starts_anew(self) -> None:
        group = Group()
        join(group, "a", topic())
        group.auto_commit("a", group.owned("a"), 6_000)
        hand_out(group, "a", 0, 3)
        group.auto_commit("a", group.owned("a"), 10_999)
        assert group.committed(topic(), 0) == 0
        group.auto_commit("a", group.owned("a"), 11_000)
        assert group.committed(topic(), 0) == 3

    def test_a_clock_that_was_set_back_does_not_stop_it(self) -> None:
        group = Group()
        join(group, "a", topic(), now_ms=DAY_MS)
        hand_out(group, "a", 0, 3)
        group.auto_commit("a", group.owned("a"), 0)
        assert group.committed(topic(), 0) == 3

    def test_what_the_instance_lost_meanwhile_is_not_its_to_commit(self) -> None:
        group = Group()
        join(group, "a", topic())
        arrived = group.owned("a")
        join(group, "b", topic())
        group.commit(topic(), 3, 0)
        hand_out(group, "b", 3, 9)
        group.auto_commit("a", {place: owned._replace(position=7) for place, owned in arrived.items()}, 6_000)
        assert group.committed(topic(), 0) == 7
        assert group.committed(topic(), 3) == 0

    def test_it_does_not_move_a_commit_back(self) -> None:
        group = Group()
        join(group, "a", topic())
        group.commit(topic(), 0, 8)
        hand_out(group, "a", 0, 3)
        group.auto_commit("a", group.owned("a"), 6_000)
        assert group.committed(topic(), 0) == 8

    def test_without_it_nothing_is_committed(self) -> None:
        group = Group()
        join(group, "a", topic(), settings=BY_HAND)
        hand_out(group, "a", 0, 3)
        group.auto_commit("a", group.owned("a"), DAY_MS)
        group.close("a")
        assert group.committed(topic(), 0) is None


class TestLeaving:
    def test_who_loses_a_partition_commits_its_position(self) -> None:
        group = Group()
        join(group, "a", topic())
        hand_out(group, "a", 3, 6)
        join(group, "b", topic())
        assert group.committed(topic(), 3) == 6
        assert position(group, "b", 3) == 6

    def test_without_auto_commit_the_new_owner_gets_the_records_again(self) -> None:
        group = Group()
        join(group, "a", topic(), settings=BY_HAND)
        hand_out(group, "a", 3, 6)
        join(group, "b", topic(), settings=BY_HAND)
        assert position(group, "b", 3) == 0

    def test_a_closed_instance_leaves_its_partitions_and_its_commits(self) -> None:
        group = Group()
        join(group, "a", topic())
        join(group, "b", topic())
        hand_out(group, "a", 1, 4)
        assert group.close("a")
        assert not group.close("a")
        settle(group, topic())
        assert numbers(group, "b") == [0, 1, 2, 3]
        assert position(group, "b", 1) == 4

    def test_silence_closes_an_instance(self) -> None:
        group = Group()
        join(group, "a", topic(), now_ms=1_000)
        join(group, "b", topic(), settings=InstanceSettings(session_timeout_ms=6_000), now_ms=1_000)
        group.close_dead(1_000 + 6_600)
        assert set(group.instances) == {"a", "b"}
        group.close_dead(1_000 + 6_601)
        assert set(group.instances) == {"a"}

    def test_signs_of_life_are_noted_when_they_are_news(self) -> None:
        group = Group()
        join(group, "a", topic(), now_ms=1_000)
        group.refresh("a", 1_000 + 11_999)
        assert group.instances["a"].seen_ms == 1_000
        group.refresh("a", 1_000 + 12_000)
        assert group.instances["a"].seen_ms == 13_000
        group.refresh("a", 500)
        assert group.instances["a"].seen_ms == 500

    def test_who_was_heard_of_within_its_timeout_is_never_closed(self) -> None:
        """A sign that was not noted counts: the last one may be just short of being news."""
        group = Group()
        join(group, "a", topic())
        group.refresh("a", 11_999)
        group.close_dead(11_999 + 120_000)
        assert "a" in group.instances

    def test_commits_stay_for_a_week_after_the_last_instance(self) -> None:
        group = Group()
        assert group.keep_ms() == 7 * DAY_MS
        join(group, "a", topic())
        assert group.keep_ms() == 7 * DAY_MS + 132_000


class TestCommits:
    @pytest.mark.parametrize("offset", [0, 5, 12_345])
    def test_an_offset_is_stored_as_given_and_moves_nothing(self, offset: int) -> None:
        group = Group()
        join(group, "a", topic())
        hand_out(group, "a", 0, 6)
        group.commit(topic(), 0, offset)
        assert group.committed(topic(), 0) == offset
        assert position(group, "a", 0) == 6

    def test_positions_are_committed_wherever_the_instance_has_one(self) -> None:
        group = Group()
        join(group, "a", topic(), settings=BY_HAND)
        hand_out(group, "a", 0, 6)
        group.commit(topic(), 0, 8)
        group.commit_positions("a")
        assert [group.committed(topic(), number) for number in range(4)] == [6, 0, 0, 0]

    def test_those_of_a_deleted_topic_are_gone(self) -> None:
        group = Group()
        join(group, "a", topic())
        group.commit(topic(), 0, 5)
        assert group.committed(topic(generation="g2"), 0) is None
        settle(group, topic(generation="g2"), bounds=Bounds(0, 2))
        assert group.committed(topic(generation="g2"), 0) == 0
        assert position(group, "a", 0) == 0

    def test_one_for_the_new_topic_forgets_what_was_known_of_the_old_one(self) -> None:
        group = Group()
        join(group, "a", topic())
        place = Place("orders", 1)
        old_epoch = group.owned("a")[place].epoch
        group.commit(topic(generation="g2"), 0, 5)
        assert group.committed(topic(generation="g2"), 1) is None
        settle(group, topic(generation="g2"))
        assert not group.hand_out("a", place, old_epoch, 9)
        assert position(group, "a", 0) == 5

    def test_a_partition_that_the_group_has_not_met_has_none(self) -> None:
        group = Group()
        join(group, "a", topic(partitions=2))
        assert group.committed(topic(partitions=4), 3) is None
        assert group.committed(topic("audit"), 0) is None


class TestEncoding:
    def test_a_group_comes_back_as_it_was(self) -> None:
        group = Group()
        join(group, "a", topic(), topic("audit"))
        join(group, "b", topic(), settings=BY_HAND)
        assert decode_group("g", encode_group(group)) == group
        assert decode_group("g", b"") == Group()

    @pytest.mark.parametrize("encoded", [b"\x02", b"\x01", b"\x01\x93"])
    def test_one_of_another_format_is_refused(self, encoded: bytes) -> None:
        with pytest.raises(StorageError, match="consumer group g "):
            decode_group("g", encoded)

"""The pages on keys, log letters and the life of a message say what the code says."""

import re
from pathlib import Path

from qstash_clone.domain.lifecycle import TRANSITIONS, LogEvent
from qstash_clone.domain.message import State
from qstash_clone.ids import MessageId
from qstash_clone.storage.codec import HEAD_BYTES
from qstash_clone.storage.keys import PartitionKeys, store_key, topic_generation_key, topics_key, url_groups_key

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_key_is_listed_and_no_other() -> None:
    keys = PartitionKeys("q", 0, 1)
    names = {name for name, value in vars(keys).items() if name != "prefix" and isinstance(value, bytes)}
    derived = {keys.lane("x"): "l:", keys.admitted("x"): "a:", keys.message(MessageId(b"")): "m"}
    derived |= {keys.deduplication(b""): "d", keys.reservation(b""): "h"}
    derived |= {keys.limits("x"): "c:", keys.slots("x"): "s:", keys.returning("x"): "r:", keys.in_flight("x"): "i:"}
    derived |= {keys.callbacks(MessageId(b"")): "k", keys.schedule("x"): "scd:"}
    derived |= {keys.topic_state("x", 0): "tp:", keys.topic_stream("x", 0): "tl:", keys.topic_index("x", 0): "ti:"}
    derived |= {keys.topic_note(b"", "x", 0): "tr:", keys.consumer_group("x"): "cg:"}
    assert all(key.startswith(keys.prefix + start.encode()) for key, start in derived.items())
    page = (DOCS / "reference/redis-keys.md").read_text()
    listed = set(re.findall(r"^\| `T` `([a-z:]+)`", page, re.MULTILINE))
    assert listed == names | set(derived.values())
    beside = [key("q") for key in (store_key, url_groups_key, topics_key, topic_generation_key)]
    assert all(f"`{key.decode()}`" in page for key in beside)


def test_the_layout_of_a_record_is_complete() -> None:
    page = (DOCS / "reference/redis-keys.md").read_text()
    rows = [(int(at), int(size)) for at, size in re.findall(r"^\| (\d+) \| (\d+) \|", page, re.MULTILINE)]
    expected = 0
    for at, size in rows:
        assert at == expected
        expected = at + size
    assert expected == HEAD_BYTES
    assert all(f"`{state.value}` {state.name.lower()}" in page for state in State)


def test_every_letter_of_the_log_is_listed() -> None:
    page = (DOCS / "reference/redis-keys.md").read_text()
    listed = dict(re.findall(r"^\| `([A-Z])` \| `([A-Z_]+)` \|", page, re.MULTILINE))
    assert listed == {event.value: event.wire_name for event in LogEvent}


def test_the_drawing_and_the_table_hold_every_transition() -> None:
    page = (DOCS / "explanation/lifecycle.md").read_text()
    drawn = set(re.findall(r"^    (\S+) --> (\S+): (.+)$", page, re.MULTILINE))
    expected: set[tuple[str, str, str]] = set()
    for step in TRANSITIONS:
        letters = " ".join(step.writes)
        label = (
            step.verb + (" after a lost lease" if step.verb == "reclaim" else "") + (f" ({letters})" if letters else "")
        )
        for source in step.sources or {None}:
            expected.add(("[*]" if source is None else source.name.lower(), step.target.name.lower(), label))
    assert drawn == expected
    rows = re.findall(r"^\| ([a-z ]+) \| ([a-z, ]*) ?\| ([a-z]+) \| ([A-Z_`, ]*) ?\|", page, re.MULTILINE)
    table = {
        (verb, frozenset(filter(None, re.split(", ?", sources.strip()))), target, tuple(re.findall("[A-Z_]+", log)))
        for verb, sources, target, log in rows
        if verb != "step"
    }
    assert table == {
        (
            step.verb,
            frozenset(source.name.lower() for source in step.sources),
            step.target.name.lower(),
            tuple(event.wire_name for event in step.writes),
        )
        for step in TRANSITIONS
    }

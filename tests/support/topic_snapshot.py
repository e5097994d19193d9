"""A look behind topic logs and consumer groups: what about them contradicts the design."""

from typing import Any, Final

from qstash_clone.storage.keys import PartitionKeys, topics_key
from qstash_clone.storage.topic_codec import StoredTopic, decode_record, decode_topic
from qstash_clone.storage.topic_log import log_partition

GROUPS: Final = "consumers"
INSTANCES: Final = b"instances"
PREFIXES: Final = (b"tp:", b"tl:", b"ti:", b"tr:", b"cg:", INSTANCES)


def topic_problems(client: Any, namespace: str, partitions: int, all_keys: list[bytes]) -> list[str]:
    """One sentence each; nothing where all is well."""
    topics = {
        name.decode(): decode_topic(name.decode(), encoded)
        for name, encoded in client.hgetall(topics_key(namespace)).items()
    }
    problems = [f"topic {name} is only half made or removed" for name, topic in topics.items() if _is_half_done(topic)]
    for number in range(partitions):
        keys = PartitionKeys(namespace, number, partitions)
        names = [key[len(keys.prefix) :] for key in all_keys if key.startswith(keys.prefix)]
        for name in names:
            if name.startswith((b"tr:", b"cg:")) and client.ttl(keys.prefix + name) == -1:
                problems.append(f"{name!r} has no lifetime")
            if name.startswith(b"cg:") and client.zscore(keys.consumers, name[3:]) is None:
                problems.append(f"consumer group {name[3:]!r} is not listed")
            if name == INSTANCES and client.ttl(keys.prefix + name) == -1:
                problems.append(f"{name!r} has no lifetime")
            if name.startswith((b"tl:", b"ti:")) and keys.prefix + b"tp:" + name[3:] not in all_keys:
                problems.append(f"{name!r} belongs to no log")
            if name.startswith(b"tp:"):
                topic, _, log = name[3:].decode().rpartition(":")
                stored = topics.get(topic)
                if stored is None or int(log) >= stored.config.partitions:
                    problems.append(f"log {name!r} belongs to no topic")
                elif log_partition(topic, int(log), partitions) != number:
                    problems.append(f"log {name!r} is on the wrong partition")
                else:
                    problems += [f"log {name!r} {problem}" for problem in _log_problems(client, keys, topic, int(log))]
    return problems


def _is_half_done(topic: StoredTopic) -> bool:
    return topic.is_deleted or topic.made != topic.config.partitions


def _log_problems(client: Any, keys: PartitionKeys, topic: str, number: int) -> list[str]:
    problems: list[str] = []
    state = {field.decode(): value for field, value in client.hgetall(keys.topic_state(topic, number)).items()}
    start, end = int(state["s"]), int(state["n"])
    entries = client.xrange(keys.topic_stream(topic, number))
    offsets = [int(entry_id.split(b"-")[0]) - 1 for entry_id, _ in entries]
    if offsets != list(range(start, end)):
        problems.append(f"holds {len(offsets)} records, and says {start} to {end}")
    if sum(len(fields[b"r"]) for _, fields in entries) != int(state["b"]):
        problems.append("counts the bytes of its records wrongly")
    times = {
        offset: decode_record(offset, fields[b"r"]).timestamp_ms
        for offset, (_, fields) in zip(offsets, entries, strict=True)
    }
    for member, score in client.zrange(keys.topic_index(topic, number), 0, -1, withscores=True):
        if times.get(int(member)) != int(score):
            problems.append(f"has an index that says {int(score)} of {int(member)}")
        if any(time > score for offset, time in times.items() if offset < int(member)):
            problems.append(f"has an index entry {int(member)} that is not the latest so far")
    return problems

"""Every key of the store; `docs/reference/redis-keys.md` is the reader's version of this module."""

from typing import Final

from qstash_clone.ids import MessageId
from qstash_clone.storage.partitions import hash_tag

CONSUMER_GROUP: Final = "workers"
"""The one consumer group of the ready stream."""


def store_key(namespace: str) -> bytes:
    """string, for ever: the number of partitions, for which the keys of a partition cannot be asked: another number
    has other hash tags. Written when the store is opened."""
    return f"{{{namespace}:store}}".encode()


def url_groups_key(namespace: str) -> bytes:
    """hash, while there are URL groups: name -> the group, MessagePack. Its owner deletes it.

    Beside the partitions: a message of a group may be in any of them. Written by replace_entry.
    """
    return store_key(namespace) + b"groups"


def topics_key(namespace: str) -> bytes:
    """hash, while there are topics: name -> the topic, MessagePack. Its owner deletes it.

    Beside the partitions: the logs of a topic are spread over them. Written by replace_entry.
    """
    return store_key(namespace) + b"topics"


def topic_generation_key(namespace: str) -> bytes:
    """string, once there was a topic: a number; the next topic gets the next one. Written when one is created."""
    return store_key(namespace) + b"generation"


def schema_texts_key(namespace: str) -> bytes:
    """hash, for ever: id of each schema of the registry -> its text; `max_schemas` bounds it.

    Nothing is taken out: records that name an id stay readable. Written by register_schema.
    """
    return store_key(namespace) + b"schemas"


def schema_ids_key(namespace: str) -> bytes:
    """hash, for ever: digest of each schema -> its id. Written by register_schema."""
    return store_key(namespace) + b"schemaids"


def subjects_key(namespace: str) -> bytes:
    """hash, while there are subjects: name -> its versions, `1:5,2:7d`. Their owner deletes them.

    Written by register_schema and replace_entry.
    """
    return store_key(namespace) + b"subjects"


def schema_levels_key(namespace: str) -> bytes:
    """hash, while levels are set: subject -> the level of compatibility; an empty name is for all that have none."""
    return store_key(namespace) + b"levels"


class PartitionKeys:
    """The keys of one partition; all share its hash tag, so that one script may touch any of them."""

    def __init__(self, namespace: str, partition: int, partitions: int) -> None:
        self.prefix = hash_tag(namespace, partition, partitions).encode()
        self.meta = self.prefix + b"meta"
        """hash, for ever: what the partition is.

        `v` storage version, `cap` deliveries at once of all live workers (this partition's share), `ck` and `nk`
        signing keys, `kr` their revision, `off` ms added to Redis's clock, `fz` ms at which it stands still, `mr` and
        `mi` revision and name of the last move of that clock, `sr` the newest revision of a schedule, `fb` bytes of
        finished records that the log still refers to. Written by initialise, heartbeat, leave, rotate_keys, move_clock;
        `sr` by put_schedule, change_schedule; `fb` by settle, claim, cancel, delete_dead_letter, retry_dead_letter,
        expire.
        """
        self.ready = self.prefix + b"ready"
        """stream, for ever: admitted messages, field `i` = id; the pending list of its group holds the leases.

        Entries are deleted when the message is settled. An entry with field `b` is a doorbell.
        Written by publish, fire_schedule, promote, claim, settle, release, cancel, retry_dead_letter, heartbeat.
        """
        self.timers = self.prefix + b"timers"
        """sorted set, while messages wait: id -> due time in ms. Written by publish, fire_schedule, settle, promote,
        cancel."""
        self.ring = self.prefix + b"ring"
        """list, while messages wait: lanes with waiting messages, in the order of their next turn.

        Written by whatever queues or admits.
        """
        self.parked = self.prefix + b"parked"
        """set: lanes with waiting messages that hold as many places as they may; the next release returns them."""
        self.blocked = self.prefix + b"blocked"
        """set: lanes with waiting messages that are held by a pause or by their own limits.

        Written by whatever queues, admits or releases, and by changes of limits.
        """
        self.windows = self.prefix + b"windows"
        """sorted set, while messages wait: lane -> end of its rate window in ms. Read by promote."""
        self.queues = self.prefix + b"queues"
        """sorted set, for ever: name of each queue -> when it was created. Its owner deletes it."""
        self.flows = self.prefix + b"flows"
        """sorted set: flow-control key -> its last use in ms. Expire drops the idle ones."""
        self.schedules = self.prefix + b"schedules"
        """sorted set: schedule -> its next fire time in ms, or that of the next look at one that could not be fired;
        without paused ones. Written by put_schedule, change_schedule, fire_schedule, due_schedules,
        postpone_schedule."""
        self.catalogue = self.prefix + b"catalogue"
        """sorted set, for ever: each schedule -> when it was created. Its owner deletes it."""
        self.log = self.prefix + b"log"
        """stream, retention by age, length and bytes: one entry per transition, field `e` = code, id, details.

        Empty with `message_log` off. Trimmed by expire.
        """
        self.dlq = self.prefix + b"dlq"
        """stream, retention by age: dead letters, field `i` = id; its entry id is the DLQ id."""
        self.dedup = self.prefix + b"dedup"
        """stream, one entry per deduplication record in order of creation, field `d` = digest, end of the window.

        Written by publish, trimmed by trim_deduplication.
        """
        self.workers = self.prefix + b"workers"
        """sorted set: live worker -> time of its last heartbeat in ms. Written by heartbeat and leave."""
        self.capacity = self.prefix + b"capacity"
        """hash: live worker -> deliveries it can hold at once. Written by heartbeat and leave."""

        self.consumers = self.prefix + b"consumers"
        """sorted set, while there are consumer groups: name -> end of its state in ms. Written by
        save_consumer_group."""
        self.instances = self.prefix + b"instances"
        """sorted set, as long as its last entry: consumer group with instances -> ms at which the last of them is
        closed if nothing is heard. Written by save_consumer_group."""

    def topic_state(self, topic: str, number: int) -> bytes:
        """hash, until its topic is deleted: the log of one partition of a topic; scripts derive it.

        `g` generation of the topic, `n` next offset, `s` first offset, `b` bytes of all records, `m` the latest
        timestamp that a record ever had, `x` the offset that was entered in the index last.
        """
        return self.prefix + f"tp:{topic}:{number}".encode()

    def topic_stream(self, topic: str, number: int) -> bytes:
        """stream, until its topic is deleted: its records, the one at offset n with id n+1; scripts derive it.

        Trimmed by trim_topic_logs.
        """
        return self.prefix + f"tl:{topic}:{number}".encode()

    def topic_index(self, topic: str, number: int) -> bytes:
        """sorted set, until its topic is deleted: offset -> timestamp, of one in 64 records; scripts derive it."""
        return self.prefix + f"ti:{topic}:{number}".encode()

    def topic_note(self, producer: bytes, topic: str, number: int) -> bytes:
        """string, a minute: what the last call of an api process has appended to a log; scripts derive it."""
        return self.prefix + b"tr:" + producer + f":{topic}:{number}".encode()

    def consumer_group(self, name: str) -> bytes:
        """string, until nobody has used it for a week: the state of a consumer group, see `topics.groups`.

        Written by save_consumer_group.
        """
        return self.prefix + b"cg:" + name.encode()

    def message(self, message_id: MessageId) -> bytes:
        """string, until the message is final and its retention over: the record, see `codec`.

        Written by publish, fire_schedule, claim, settle, promote, release, cancel, retry_dead_letter; scripts
        derive it.
        """
        return self.prefix + b"m" + message_id

    def deduplication(self, digest: bytes) -> bytes:
        """string, until its window is over: the id of the first message with that digest, end of the window.

        Written by publish; dropped by clear_deduplication, and by trim_deduplication if there are too many.
        """
        return self.prefix + b"d" + digest

    def schedule(self, schedule_id: str) -> bytes:
        """string, until its owner deletes it: the record of a schedule, see `schedule_codec`.

        Written by put_schedule, change_schedule, fire_schedule; scripts derive it.
        """
        return self.prefix + b"scd:" + schedule_id.encode()

    def reservation(self, digest: bytes) -> bytes:
        """string, a day at most: the id of a message about to be the first with that digest, on another partition.

        Written by reserve_deduplication, dropped by confirm_deduplication and clear_deduplication.
        """
        return self.prefix + b"h" + digest

    def lane(self, lane: str) -> bytes:
        """list, while messages wait: ids in the waiting line of a lane; scripts derive it."""
        return self.prefix + b"l:" + lane.encode()

    def limits(self, lane: str) -> bytes:
        """hash: limits and counts of a queue or a flow-control key; scripts derive it.

        `p` parallelism, `r` rate, `w` its period in ms, `x` 1 paused, `n` messages that are not final, `b` id of the
        last one that claim has put back at the head of a list, while it is there. Of a queue `ct` and `ut` created and
        updated, `mc` its newest member created, `del` 1 deleted while it had messages, `dt` deleted: older members are
        cancelled at their turn. Of a key `pp` and `pr` 1 pinned, `ws` and `wc` start and count of the rate window, `z`
        cancelled ids still in its list, `u` its score in `flows`.
        """
        return self.prefix + b"c:" + lane.encode()

    def slots(self, lane: str) -> bytes:
        """set, while members hold slots: ids of the members of a queue that do; scripts derive it."""
        return self.prefix + b"s:" + lane.encode()

    def returning(self, lane: str) -> bytes:
        """list, while members wait: ids of the members of a queue that have a slot and wait; scripts derive it."""
        return self.prefix + b"r:" + lane.encode()

    def callbacks(self, message_id: MessageId) -> bytes:
        """set, until they are final: ids of the callbacks of a queue's member; scripts derive it."""
        return self.prefix + b"k" + message_id

    def in_flight(self, lane: str) -> bytes:
        """set, while attempts are under way: their messages' ids, per flow-control key; scripts derive it."""
        return self.prefix + b"i:" + lane.encode()

    def admitted(self, lane: str) -> bytes:
        """set, while messages are ready or in flight: ids that hold a place of the lane; scripts derive it."""
        return self.prefix + b"a:" + lane.encode()

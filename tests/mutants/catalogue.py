"""The places that are broken, and the tests that must notice."""

from collections.abc import Sequence
from dataclasses import dataclass

LUA = "qstash_clone/storage/lua/"
STORAGE = "qstash_clone/storage/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change that must make a test fail."""

    name: str
    path: str
    old: str
    """Occurs exactly once in the file."""
    new: str
    selection: Sequence[str]
    """Arguments of pytest."""
    on_all_engines: bool = False
    """Only one of the engines tells the difference."""


def _script(script: str, name: str, old: str, new: str, *tests: str, on_all_engines: bool = False) -> Mutant:
    """A change of a script; tests are modules of tests/storage, then perhaps `-k` and an expression."""
    modules = [f"tests/storage/test_{test}.py" for test in tests if test in _MODULES]
    others = [test for test in tests if test not in _MODULES]
    path = f"{LUA}{script}.lua"
    return Mutant(
        name=f"{script.removeprefix('include/')}: {name}",
        path=path,
        old=old,
        new=new,
        selection=[*modules, *others],
        on_all_engines=on_all_engines,
    )


_MODULES = {
    "broken_off",
    "callbacks",
    "cancel",
    "claim",
    "codec",
    "dead_letters",
    "deduplication",
    "expire",
    "extend",
    "full_redis",
    "grouping",
    "heartbeat",
    "promote",
    "publish",
    "release",
    "scripts",
    "settle",
    "signing_keys",
    "store",
    "without_log",
}

PUBLISH = (
    _script(
        "include/store_message",
        "a repeated id is stored again",
        "if redis.call('STRLEN', key) > 0 then",
        "if false then",
        "publish",
    ),
    _script(
        "include/store_message", "a not-before of zero is none", "not_before_ms >= 0", "not_before_ms > 0", "publish"
    ),
    _script("include/store_message", "due now waits in the timers", "due_ms <= now_ms", "due_ms < now_ms", "publish"),
    _script("include/store_message", "no doorbell", "redis.call('XADD', ready, '*', 'b', '1')", "", "publish"),
    _script(
        "include/store_message", "a doorbell for every timer", "(timers) ~= earliest", "(timers) ~= false", "publish"
    ),
    _script("include/store_message", "a doorbell for nobody", "partition.capacity > 0 and ", "", "publish"),
    _script(
        "include/store_message",
        "timer at the wrong time",
        "'ZADD', timers, due_ms",
        "'ZADD', timers, now_ms",
        "publish",
    ),
    _script("include/store_message", "no CREATED", "log_event(log, 'C', id)", "", "publish"),
    _script("include/log", "written although it is off", "if log then", "if true then", "without_log"),
    _script("publish", "one member fails all", "pcall(publish, id,", "true, publish(id,", "publish"),
)

DEDUPLICATION = (
    _script("publish", "a repeat is stored", "if first_id and redis", "if false and redis", "deduplication"),
    _script("publish", "a repeated call is a repeat", "if first_id == id then", "if false then", "deduplication"),
    _script(
        "publish",
        "what is stored is called a repeat",
        " and redis.call('STRLEN', message_key(partition.prefix, id)) == 0",
        "",
        "deduplication",
    ),
    _script(
        "publish",
        "on record before it is stored",
        "  store_message(partition,",
        "  if digest then\n    write_deduplication(partition, dedup, digest, 60000, id)\n  end\n"
        "  store_message(partition,",
        "broken_off",
        "-k",
        "publish_once and lane",
    ),
    _script("include/dedup", "a window without end", "ends_ms > partition.now_ms", "true", "deduplication"),
    _script("include/dedup", "Redis keeps it for ever", ", 'PX', window_ms)", ")", "deduplication"),
    _script(
        "include/dedup",
        "nobody will drop it",
        "  redis.call('XADD', dedup, '*', 'd', digest .. ends)\n",
        "",
        "deduplication",
    ),
    _script(
        "trim_deduplication",
        "a newer record goes with an old entry",
        " and string.sub(record, MESSAGE_ID_BYTES + 1) == ends",
        "",
        "deduplication",
    ),
    _script("trim_deduplication", "any number of records", "dedup) - max_records", "dedup) - 1000", "deduplication"),
    _script("trim_deduplication", "dropped early", "not is_over and dropped >= excess", "false", "deduplication"),
    _script("trim_deduplication", "the record stays", "    redis.call('DEL', key)\n", "", "deduplication"),
    _script("trim_deduplication", "all at once", "'COUNT', limit", "'COUNT', 1000", "deduplication"),
    _script("clear_deduplication", "the record stays", "redis.call('DEL', ", "redis.call('GET', ", "deduplication"),
)

CALLBACKS = (
    _script("settle", "a cancelled message reports", "  if not is_canceled then\n", "  if true then\n", "callbacks"),
    _script(
        "settle",
        "written before the callbacks' lanes were looked at",
        "    look_at_callbacks(callbacks_at, behind)\n",
        "",
        "callbacks",
    ),
    _script(
        "settle", "callbacks are forgotten", "    store_callbacks(callbacks_at, behind, dlq_id)\n", "", "callbacks"
    ),
    _script(
        "settle",
        "reported and not recorded",
        "  head.claims = 0\n",
        "  if callbacks_at < behind then\n    return 'settled'\n  end\n  head.claims = 0\n",
        "callbacks",
    ),
    _script("settle", "a failure without its id", "dlq_id and dlq_id_at >= 0", "false", "callbacks"),
    _script("settle", "the rest of the body is cut", "dlq_id_at + 1)", "dlq_id_at + 2)", "callbacks"),
    _script("settle", "no doorbell for callbacks", "if earliest then", "if false then", "callbacks"),
    _script("settle", "a doorbell for every callback", "if ARGV[child + 1] ~= '0' then", "if true then", "callbacks"),
    _script("include/dead_letter", "an id of no partition", "sequence * partitions + number", "sequence", "callbacks"),
)

LANES = (
    _script("include/lanes", "overtaking in a lane", "look.waiting == 0 and look", "look", "publish", "heartbeat"),
    _script(
        "include/lanes",
        "a lane fills the workers",
        "look.admitted < partition.free",
        "look.admitted <= partition.free",
        "heartbeat",
    ),
    _script(
        "include/lanes",
        "a waiting lane gets no turns",
        "  if look.waiting == 0 then\n    redis.call('RPUSH', ring, lane)",
        "  if look.waiting == 1 then\n    redis.call('RPUSH', ring, lane)",
        "publish",
    ),
    _script(
        "include/lanes",
        "admitted without a place",
        "redis.call('SADD', partition.prefix .. 'a:' .. lane, id)",
        "",
        "claim",
    ),
    _script(
        "include/lanes",
        "a place is never given back",
        "redis.call('SREM', partition.prefix .. 'a:' .. lane, id)",
        "",
        "settle",
    ),
    _script(
        "include/lanes",
        "a parked lane stays parked",
        "if redis.call('SISMEMBER', parked, lane) == 1 then",
        "if false then",
        "cancel",
        "settle",
    ),
    _script(
        "include/lanes",
        "out of the parked set before into the ring",
        "  redis.call('RPUSH', ring, lane)\n  redis.call('SREM', parked, lane)\n",
        "  redis.call('SREM', parked, lane)\n  redis.call('RPUSH', ring, lane)\n",
        "broken_off",
        "-k",
        "heartbeat_and_unpark",
    ),
    _script(
        "include/lanes",
        "unparked twice",
        "  redis.call('SREM', parked, lane)\n",
        "",
        "heartbeat",
        "settle",
    ),
    _script(
        "include/lanes",
        "a refused lane is forgotten",
        "    redis.call('SADD', parked, lane)\n    redis.call('LPOP', ring)\n    return",
        "    redis.call('LPOP', ring)\n    return",
        "settle",
        "heartbeat",
    ),
    _script("include/lanes", "a cancelled message is admitted", "1, 1)) == QUEUED then", "1, 1)) then", "cancel"),
    _script("include/lanes", "one lane has all turns", "'LEFT', 'RIGHT'", "'LEFT', 'LEFT'", "heartbeat"),
    _script(
        "include/lanes",
        "a turn for one place too many",
        "lane) >= partition.free then",
        "lane) > partition.free then",
        "heartbeat",
    ),
    _script(
        "include/lanes",
        "a lane that cannot be read stops all",
        "not pcall(take_turn, partition, ready, ring, parked, lane)",
        "take_turn(partition, ready, ring, parked, lane)",
        "settle",
    ),
    _script("include/lanes", "turns without end", "    limit = limit - 1\n", "", "heartbeat"),
)

CLAIM = (
    _script("claim", "no new generation", "(head.generation + 1) % GENERATIONS", "head.generation", "claim"),
    _script("claim", "claims are not counted", "math.min(head.claims + 1, MOST_CLAIMS)", "1", "claim"),
    _script("claim", "claims overflow", "math.min(head.claims + 1, MOST_CLAIMS)", "(head.claims + 1) % 256", "claim"),
    _script("claim", "anybody's taken entry", "pending and pending[2] == consumer", "pending", "claim"),
    _script(
        "claim",
        "a repeated claim throws the entry away",
        "head.state == ACTIVE and source == NEW",
        "head.state == ACTIVE and source ~= EXPIRED",
        "claim",
    ),
    _script("claim", "a repeated claim counts again", "head.state == ACTIVE and source == TAKEN", "false", "claim"),
    _script("claim", "taken and reclaimed in one call", "entry and not is_taken[entry[1]]", "entry", "claim"),
    _script(
        "claim",
        "a deleted entry ends the call on 6.2",
        "entry and not is_taken[entry[1]]",
        "not (entry and is_taken[entry[1]])",
        "claim",
        on_all_engines=True,
    ),
    _script("claim", "no XACK", "  redis.call('XACK', ready, group, entry_id)\n", "", "claim"),
    _script("claim", "no XDEL", "  redis.call('XDEL', ready, entry_id)\n", "", "claim"),
    _script(
        "claim",
        "expired leases above the limit",
        "EXPIRED)\n        limit = limit - 1\n",
        "EXPIRED)\n",
        "claim",
    ),
    _script("claim", "live leases are reclaimed", "consumer, lease_ms, start", "consumer, 0, start", "claim"),
    _script("claim", "a cancelled message is delivered", "head.flags == CANCEL_REQUESTED", "false", "claim"),
    _script("claim", "a reply of any size", "reply_bytes + shown > REPLY_BYTES", "false", "claim"),
    _script(
        "claim",
        "written before the place was looked at",
        "look_at_place(partition, ring, parked, head.lane)\n    finish_message",
        "finish_message",
        "claim",
    ),
    _script("claim", "no place is freed", "  release_place(partition, ring, parked, lane, id)\n", "", "claim"),
    _script("claim", "a doorbell is not heard", "    rang = 1\n", "", "claim"),
    _script("claim", "one fault fails all", "pcall(step, ...)", "true, step(...)", "claim"),
    _script("claim", "nothing moves up", "if dropped > 0 then", "if false then", "claim"),
    _script("claim", "stops when Redis is full", "write_when_full(ready, group)\n", "", "full_redis"),
    _script("claim", "gives up behind many live leases", "rounds >= 1000", "rounds >= 100", "claim"),
    _script("claim", "no ACTIVE", "log_event(log, 'A', id)", "", "claim"),
    _script("claim", "a held-up call reclaims", "partition.now_ms <= reclaim_until_ms", "true", "claim"),
)

SETTLE = (
    _script("settle", "any generation", "head.generation ~= generation", "false", "settle"),
    _script("settle", "in any state", "if head.state ~= ACTIVE then", "if false then", "settle"),
    _script("settle", "no XACK", "  redis.call('XACK', ready, group, entry_id)\n", "", "settle"),
    _script("settle", "no XDEL", "  redis.call('XDEL', ready, entry_id)\n", "", "settle"),
    _script(
        "settle",
        "the place is kept",
        "  release_place(partition, ring, parked, head.lane, id)\n",
        "",
        "settle",
    ),
    _script(
        "settle",
        "acknowledged before it is written",
        "  head.claims = 0\n",
        "  redis.call('XACK', ready, group, entry_id)\n  redis.call('XDEL', ready, entry_id)\n  head.claims = 0\n",
        "broken_off",
        "-k",
        "settle_retry and timers",
    ),
    _script(
        "settle",
        "written before the place was looked at",
        "  look_at_place(partition, ring, parked, head.lane)\n",
        "",
        "settle",
    ),
    _script("settle", "claims are not reset", "  head.claims = 0\n", "", "claim"),
    _script("settle", "attempts are not counted", "head.attempts + 1", "head.attempts", "settle"),
    _script("settle", "no timer", "redis.call('ZADD', timers, head.due_ms, id)", "", "settle"),
    _script("settle", "timer at the wrong time", "'ZADD', timers, head.due_ms", "'ZADD', timers, now_ms", "settle"),
    _script("settle", "a dead letter is kept for ever", "redis.call('PEXPIRE', key, dlq_retention_ms)", "", "settle"),
    _script("include/finish", "kept for ever", "redis.call('PEXPIRE', key, retention_ms)", "", "settle"),
    _script(
        "include/finish",
        "not counted",
        "redis.call('HINCRBY', meta, 'fb', partition.finished_bytes)",
        "",
        "settle",
    ),
    _script("settle", "a cancellation is ignored", "head.flags == CANCEL_REQUESTED", "false", "settle"),
    _script("settle", "the attempt is not kept", "append_attempt(key, now_ms, attempt)", "", "settle"),
    _script("settle", "one member fails all", "pcall(settle, ARGV[at],", "true, settle(ARGV[at],", "settle"),
    _script("settle", "nothing moves up", "admit(partition, ready, ring, parked, #reply + 8)", "", "settle"),
    _script("settle", "one moves up for many", "parked, #reply + 8)", "parked, 1)", "settle"),
    _script("settle", "stops when Redis is full", "write_when_full(ready, group)\n", "", "full_redis"),
    _script("include/record", "an attempt doubles the record", "<= REWRITE_BYTES", "< 0", "settle"),
    _script("include/dead_letter", "not in the queue", "redis.call('XADD', dlq, '*', 'i', id)", "'1-1'", "settle"),
)

CARE = (
    _script("extend", "any generation", " and head.generation == generation", "", "extend"),
    _script("extend", "a lease that is gone is renewed", "if not renewed[entry_id]", "if false", "extend"),
    _script("extend", "one record costs all leases", "pcall(is_current, ", "true, is_current(", "extend"),
    _script("release", "any generation", "head.generation ~= generation or ", "", "release"),
    _script("release", "no new generation", "(head.generation + 1) % GENERATIONS", "head.generation", "release"),
    _script("release", "wears the message out", "head.claims = head.claims - 1\n", "", "release"),
    _script("release", "no XDEL", "  redis.call('XDEL', ready, entry_id)\n", "", "release"),
    _script("release", "not ready again", "redis.call('XADD', ready, '*', 'i', id)", "", "release"),
    _script(
        "promote",
        "the timer stays",
        "  write_head(key, head)\n  redis.call('ZREM', timers, id)\n",
        "  write_head(key, head)\n",
        "promote",
    ),
    _script("promote", "whatever state", "not head or head.state ~= DELAYED", "not head", "promote"),
    _script("promote", "without limit", "'LIMIT', 0, limit", "'LIMIT', 0, -1", "promote"),
    _script("promote", "stops when Redis is full", "redis.call('ZREM', timers, '')", "", "full_redis"),
    _script("promote", "one fault fails all", "pcall(promote, id)", "true, promote(id)", "promote"),
    _script("promote", "a fault is met again at once", "partition.now_ms + AGAIN_MS", "partition.now_ms", "promote"),
    _script("cancel", "the place is kept", "release_place(partition, ring, parked, head.lane, id)\n", "", "cancel"),
    _script("cancel", "the timer stays", "redis.call('ZREM', timers, id)\n", "", "cancel"),
    _script("cancel", "kept for ever", ", 'X', retention_ms)", ", 'X', 2 ^ 40)", "cancel"),
    _script("cancel", "the request is not noted", "  head.flags = CANCEL_REQUESTED\n", "", "cancel"),
    _script("cancel", "a dead letter is cancelled", " or head.state == FAILED", "", "cancel"),
    _script("heartbeat", "the silent count", "  redis.call('HDEL', capacity, gone)\n", "", "heartbeat"),
    _script("heartbeat", "a leaving worker takes its entries along", "[1] == nil then", "[1] ~= 0 then", "heartbeat"),
    _script("heartbeat", "parked lanes get no other chance", "  unpark(ring, parked, lane)\n", "", "heartbeat"),
    _script(
        "retry_dead_letter",
        "a repeated call finds nothing",
        "redis.call('STRLEN', new_key) > 0",
        "false",
        "dead_letters",
    ),
    _script(
        "retry_dead_letter",
        "stays in the queue",
        "log_event(log, 'C', new_id)\nredis.call('XDEL', dlq, entry)",
        "log_event(log, 'C', new_id)",
        "dead_letters",
    ),
    _script(
        "retry_dead_letter",
        "keeps its past",
        "HEAD_BYTES + 1, old.total_bytes",
        "HEAD_BYTES + 1, #record",
        "dead_letters",
    ),
    _script("delete_dead_letter", "the record stays", "redis.call('DEL', key)", "", "dead_letters"),
    _script(
        "delete_dead_letter",
        "nobody will drop the record",
        "retire_record(partition, log, key, id, 'Z', retention_ms)",
        "redis.call('PERSIST', key)",
        "dead_letters",
    ),
    _script("expire", "throws pending entries away", "consumer.pending == 0 and ", "", "expire"),
    _script("expire", "dead letters stay", "  redis.call('XDEL', dlq, entry[1])\n", "", "expire"),
    _script("expire", "the log has no age", "is_old = entry_ms < oldest_ms", "is_old = false", "expire"),
    _script("expire", "the log has no length", " or length - dropped > log_max_entries", "", "expire"),
    _script("expire", "any number of bytes", " > finished_max_bytes\n", " > 2 ^ 50\n", "expire"),
    _script("expire", "bytes are not taken off", "'fb', -freed_bytes)", "'fb', 0)", "expire"),
    _script("expire", "the record stays", "  else\n    redis.call('DEL', key)\n", "", "expire"),
    _script("expire", "calls cannot be repeated", "if age_ms < grace_ms then", "if false then", "expire"),
    _script("rotate_keys", "the last one wins", "< revision then", "< revision + 1 then", "signing_keys"),
    _script("include/partition", "any version", "if fields[1] ~= version then", "if false then", "store"),
    _script("include/record", "any format", " or string.byte(bytes, 1) ~= FORMAT", "", "codec"),
    _script("initialise", "the group is not made again", " and #redis.call('XINFO', 'GROUPS', ready) > 0", "", "store"),
)

PYTHON = (
    Mutant(
        name="scripts: a lost reply is not told apart",
        path=STORAGE + "scripts.py",
        old="may_have_run = True",
        new="may_have_run = False",
        selection=["tests/storage/test_cancel.py"],
    ),
    Mutant(
        name="scripts: an emptied store counts as a lost reply",
        path=STORAGE + "scripts.py",
        old="await self._initialise()\n",
        new="await self._initialise()\n                may_have_run = True\n",
        selection=["tests/storage/test_dead_letters.py"],
    ),
    Mutant(
        name="delivery store: a lost doorbell",
        path=STORAGE + "delivery_store.py",
        old="rang == 1 or is_repeated",
        new="rang == 1",
        selection=["tests/storage/test_claim.py"],
    ),
    Mutant(
        name="delivery store: one record ends the batch",
        path=STORAGE + "delivery_store.py",
        old="except (ValueError, struct.error) as error:",
        new="except ZeroDivisionError as error:",
        selection=["tests/storage/test_claim.py"],
    ),
    Mutant(
        name="store: any number of partitions",
        path=STORAGE + "store.py",
        old="if int(stored) != settings.partitions:",
        new="if False:",
        selection=["tests/storage/test_store.py"],
    ),
    Mutant(
        name="store: the record of a finished message goes with its grace",
        path=STORAGE + "store.py",
        old="finished_grace_ms = max(settings.message_grace_ms, REPLAY_WINDOW_MS)",
        new="finished_grace_ms = settings.message_grace_ms",
        selection=["tests/storage/test_without_log.py"],
    ),
    Mutant(
        name="store: half a rotation",
        path=STORAGE + "store.py",
        old="if int(revision) < newest:",
        new="if False:",
        selection=["tests/storage/test_signing_keys.py"],
    ),
    Mutant(
        name="grouping: groups of any weight",
        path=STORAGE + "grouping.py",
        old="if group and total_bytes > MAX_BYTES:",
        new="if False:",
        selection=["tests/storage/test_grouping.py"],
    ),
    Mutant(
        name="grouping: groups of any length",
        path=STORAGE + "grouping.py",
        old="len(group) < MAX_ITEMS",
        new="len(group) <= MAX_ITEMS",
        selection=["tests/storage/test_grouping.py"],
    ),
    Mutant(
        name="commands: full is taken for away",
        path=STORAGE + "commands.py",
        old="isinstance(error, redis.exceptions.OutOfMemoryError) or ",
        new="",
        selection=["tests/storage/test_full_redis.py"],
    ),
    Mutant(
        name="places: a page begins with the end of the last one (oldest first)",
        path=STORAGE + "places.py",
        old="else partition > of_partition",
        new="else True",
        selection=["tests/storage/test_dead_letters.py"],
    ),
    Mutant(
        name="places: a page leaves out entries of the same time (newest first)",
        path=STORAGE + "places.py",
        old="partition < of_partition if",
        new="False if",
        selection=["tests/storage/test_dead_letters.py"],
    ),
    Mutant(
        name="delivery store: nobody gives up what nobody can read",
        path=STORAGE + "delivery_store.py",
        old="if claims <= self._limits.max_claims:",
        new="if True:",
        selection=["tests/storage/test_claim.py"],
    ),
    Mutant(
        name="delivery store: callbacks weigh nothing",
        path=STORAGE + "delivery_store.py",
        old="            weight += callback_weight\n",
        new="",
        selection=["tests/storage/test_callbacks.py"],
    ),
    Mutant(
        name="publish store: repeats on any partition",
        path=STORAGE + "publish_store.py",
        old="self._filling if deduplication is None else self._deciding(deduplication)",
        new="self._filling",
        selection=["tests/storage/test_deduplication.py"],
    ),
    Mutant(
        name="worker deliver: a message that kills its workers is delivered",
        path="worker/deliver.py",
        old="delivery.claim.claims > self._max_claims",
        new="delivery.claim.claims > 1000",
        selection=["tests/worker/test_callbacks.py"],
    ),
    Mutant(
        name="worker deliver: a message that kills its workers is reported for ever",
        path="worker/deliver.py",
        old=" and claim.claims <= 2 * self._max_claims",
        new="",
        selection=["tests/worker/test_callbacks.py"],
    ),
    Mutant(
        name="worker deliver: attempts are not reported",
        path="worker/deliver.py",
        old="if claim.message.extras is not None:",
        new="if False:",
        selection=["tests/worker/test_callbacks.py"],
    ),
    Mutant(
        name="worker claim: taken entries are forgotten",
        path="worker/claim.py",
        old="taken=self._taken,",
        new="taken=(),",
        selection=["tests/worker/test_claim.py"],
    ),
    Mutant(
        name="worker claim: more than there are free slots",
        path="worker/claim.py",
        old="                held,\n                taken",
        new="                held + 1,\n                taken",
        selection=["tests/worker/test_claim.py"],
    ),
    Mutant(
        name="worker settle: given up at the first fault",
        path="worker/settle.py",
        old="return await self._settle_again(delivery, settlement)",
        new="return None",
        selection=["tests/worker/test_settle.py"],
    ),
    Mutant(
        name="worker settle: interrupted by a lost lease",
        path="worker/settle.py",
        old="delivery.is_settling = True",
        new="delivery.is_settling = False",
        selection=["tests/worker/test_settle.py"],
    ),
)

MUTANTS = (*PUBLISH, *DEDUPLICATION, *CALLBACKS, *LANES, *CLAIM, *SETTLE, *CARE, *PYTHON)

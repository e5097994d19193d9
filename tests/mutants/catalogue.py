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
    "cancel",
    "claim",
    "codec",
    "dead_letters",
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
}

PUBLISH = (
    _script(
        "publish", "a repeated id is stored again", "if redis.call('STRLEN', key) > 0 then", "if false then", "publish"
    ),
    _script("publish", "a not-before of zero is none", "not_before_ms >= 0", "not_before_ms > 0", "publish"),
    _script("publish", "due now waits in the timers", "due_ms <= now_ms", "due_ms < now_ms", "publish"),
    _script("publish", "no doorbell", "redis.call('XADD', ready, '*', 'b', '1')", "", "publish"),
    _script("publish", "a doorbell for every timer", "[1] ~= earliest", "[1] ~= false", "publish"),
    _script("publish", "a doorbell for nobody", "partition.capacity > 0 and ", "", "publish"),
    _script("publish", "timer at the wrong time", "'ZADD', timers, due_ms", "'ZADD', timers, now_ms", "publish"),
    _script("publish", "one member fails all", "pcall(store, id,", "true, store(id,", "publish"),
    _script("publish", "no CREATED", "log_event(log, 'C', id)", "", "publish"),
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
    _script("claim", "claims are not counted", "head.claims = head.claims + 1", "head.claims = 1", "claim"),
    _script("claim", "one claim too many", "head.claims >= max_claims", "head.claims > max_claims", "claim"),
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
        "look_at_place(partition, ring, parked, head.lane)\n    append_attempt",
        "append_attempt",
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
    _script("settle", "kept for ever", "  redis.call('PEXPIRE', key, grace_ms)\n", "", "settle"),
    _script("settle", "a cancellation is ignored", "head.flags == CANCEL_REQUESTED", "false", "settle"),
    _script("settle", "the attempt is not kept", "append_attempt(key, now_ms, attempt)", "", "settle"),
    _script("settle", "one member fails all", "pcall(settle, entry_id,", "true, settle(entry_id,", "settle"),
    _script("settle", "nothing moves up", "admit(partition, ready, ring, parked, #reply + 8)", "", "settle"),
    _script("settle", "one moves up for many", "parked, #reply + 8)", "parked, 1)", "settle"),
    _script("settle", "stops when Redis is full", "write_when_full(ready, group)\n", "", "full_redis"),
    _script("include/record", "an attempt doubles the record", "<= REWRITE_BYTES", "< 0", "settle"),
    _script("include/dead_letter", "kept for ever", "redis.call('PEXPIRE', key, retention_ms)", "", "settle"),
    _script("include/dead_letter", "not in the queue", "redis.call('XADD', dlq, '*', 'i', id)", "", "settle"),
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
    _script("cancel", "kept for ever", "redis.call('PEXPIRE', key, grace_ms)\n", "", "cancel"),
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
    _script("retry_dead_letter", "keeps its past", "old.total_bytes", "#record", "dead_letters"),
    _script("delete_dead_letter", "the record stays", "redis.call('DEL', key)", "", "dead_letters"),
    _script("expire", "throws pending entries away", "consumer.pending == 0 and ", "", "expire"),
    _script("expire", "dead letters stay", "  redis.call('XDEL', dlq, entry[1])\n", "", "expire"),
    _script("expire", "the log has no age", "'MINID', '~', cutoff(log_retention_ms)", "'MINID', '~', '0-0'", "expire"),
    _script("expire", "the log has no length", "'MAXLEN', '~', log_max_entries", "'MAXLEN', '~', 1000000", "expire"),
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
        old="max(settings.message_grace_ms, REPLAY_WINDOW_MS)",
        new="settings.message_grace_ms",
        selection=["tests/storage/test_publish.py"],
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
        name="admin store: a page begins with the end of the last one (oldest first)",
        path=STORAGE + "admin_store.py",
        old='place if partition > of_partition else f"({place}", "+"',
        new='place, "+"',
        selection=["tests/storage/test_dead_letters.py"],
    ),
    Mutant(
        name="admin store: a page leaves out entries of the same time (newest first)",
        path=STORAGE + "admin_store.py",
        old='place if partition < of_partition else f"({place}"',
        new='f"({place}"',
        selection=["tests/storage/test_dead_letters.py"],
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

MUTANTS = (*PUBLISH, *LANES, *CLAIM, *SETTLE, *CARE, *PYTHON)

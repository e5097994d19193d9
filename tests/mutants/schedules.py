"""The places about schedules that are broken, and the tests that must notice."""

from tests.mutants.mutant import LUA, Mutant

CRON = "qstash_clone/domain/cron.py"
TIME_ZONES = "qstash_clone/domain/time_zones.py"
DOMAIN = "qstash_clone/domain/schedules.py"
STORE = "qstash_clone/storage/schedule_store.py"
CODEC = "qstash_clone/storage/schedule_codec.py"
LOOP = "worker/scheduler.py"


def _mutant(name: str, path: str, old: str, new: str, *tests: str) -> Mutant:
    """`tests` are below `tests/`, without `test_` and `.py`: `unit/cron`."""
    modules = ["tests/{}/test_{}.py".format(*test.split("/")) for test in tests]
    return Mutant(name=f"{path.split('/')[-1]}: {name}", path=path, old=old, new=new, selection=modules)


def _script(script: str, name: str, old: str, new: str, *tests: str) -> Mutant:
    return _mutant(name, f"{LUA}{script}.lua", old, new, *(f"storage/{test}" for test in tests))


RULES = (
    _mutant("a repeated time fires twice", CRON, 'texts[1].startswith("*")', "True", "unit/cron"),
    _mutant("a wildcard hour fires once", CRON, 'texts[1].startswith("*")', "False", "unit/cron"),
    _mutant("a stepped hour is none", CRON, 'texts[1].startswith("*")', 'texts[1] == "*"', "unit/cron"),
    _mutant(
        "a time that is left out moves",
        CRON,
        "if found_ms < stretch.end_ms + stretch.offset_ms:",
        "if found_ms < stretch.end_ms + stretch.offset_ms + 3_600_000:",
        "unit/cron",
    ),
    _mutant(
        "both day fields have to hold", CRON, "either = not any_day and not any_weekday", "either = False", "unit/cron"
    ),
    _mutant("either day field will do", CRON, "either = not any_day and not any_weekday", "either = True", "unit/cron"),
    _mutant(
        "30 February is waited for", CRON, "if not either and min(days) >", "if False and min(days) >", "unit/cron"
    ),
    _mutant("a step of any size", CRON, "not 1 <= int(step) <= field.greatest", "int(step) < 1", "unit/cron"),
    _mutant("now counts as later", CRON, "low_ms = max(unix_ms + 1, 0)", "low_ms = max(unix_ms, 0)", "unit/cron"),
    _mutant(
        "repeated over the turn of the year",
        TIME_ZONES,
        "probe_ms, last_ms = start_ms - _DAY_MS,",
        "probe_ms, last_ms = start_ms,",
        "unit/time_zones",
    ),
    _mutant("changes are looked for once a week", TIME_ZONES, "_PROBE_MS = 3 *", "_PROBE_MS = 30 *", "unit/time_zones"),
    _mutant("ids of places", DOMAIN, "{seen[url]}\\n{url}", "{len(ids)}", "unit/schedules"),
    _mutant(
        "the oldest instant fires",
        DOMAIN,
        "return due_ms if newest_ms is None else newest_ms",
        "due_ms",
        "unit/schedules",
    ),
    _mutant(
        "a delay from now",
        DOMAIN,
        "not_before_ms=instant_ms + schedule",
        "not_before_ms=0 + schedule",
        "unit/schedules",
    ),
)

SCRIPTS = (
    _script("put_schedule", "any number", "if not exists and count >= most then", "if false then", "put_schedule"),
    _script("put_schedule", "overwriting counts", "if not exists and count", "if count", "put_schedule"),
    _script(
        "put_schedule",
        "the caller's clock",
        "if not is_next(partition, counted_from_ms, next_ms) then",
        "if false then",
        "put_schedule",
    ),
    _script("put_schedule", "not listed", "redis.call('ZADD', catalogue, partition.now_ms, id)\n", "", "put_schedule"),
    _script("put_schedule", "not awaited", "await_instant(partition, schedules, id, next_ms)\n", "", "put_schedule"),
    _script("put_schedule", "written before all was read", "redis.call('ZCARD', schedules)\n", "", "put_schedule"),
    _script(
        "put_schedule",
        "the doorbell is found broken too late",
        "redis.call('XLEN', partition.ready)\n",
        "",
        "put_schedule",
    ),
    _script("include/schedule", "revisions come again", "redis.call('HINCRBY', meta, 'sr', 1)", "1", "put_schedule"),
    _script(
        "include/schedule",
        "an instant that is now",
        "partition.now_ms < next_ms",
        "partition.now_ms <= next_ms",
        "put_schedule",
    ),
    _script(
        "include/schedule", "a count from the future", "counted_from_ms <= partition.now_ms and ", "", "put_schedule"
    ),
    _script("include/schedule", "no doorbell", "    ring_doorbell(partition)\n", "", "put_schedule"),
    _script(
        "include/schedule",
        "a doorbell for every schedule",
        "if not earliest or next_ms < tonumber(earliest) then",
        "if true then",
        "put_schedule",
    ),
    _script("include/schedule", "any format", " or string.byte(bytes) ~= SCHEDULE_FORMAT", "", "due_schedules"),
    _script(
        "change_schedule",
        "a pause keeps plans valid",
        "PAUSED, next_revision(meta), 0",
        "PAUSED, head.revision, 0",
        "change_schedule",
    ),
    _script(
        "change_schedule",
        "a resumption keeps plans valid",
        "0, next_revision(meta), next_ms",
        "0, head.revision, next_ms",
        "change_schedule",
    ),
    _script(
        "change_schedule",
        "a pause is forgotten",
        "head.flags, head.revision, head.next_ms = PAUSED",
        "head.flags, head.revision, head.next_ms = 0",
        "change_schedule",
    ),
    _script(
        "change_schedule",
        "a paused one is awaited",
        "  redis.call('ZREM', schedules, id)\n  head.flags",
        "  head.flags",
        "change_schedule",
    ),
    _script(
        "change_schedule",
        "resumed with an old plan",
        "if head.revision ~= revision then",
        "if false then",
        "change_schedule",
    ),
    _script(
        "change_schedule",
        "resumed into the past",
        "if not is_next(partition, counted_from_ms, next_ms) then",
        "if false then",
        "change_schedule",
    ),
    _script("change_schedule", "a deleted one comes back", "  redis.call('DEL', record)\n", "", "change_schedule"),
    _script(
        "change_schedule", "a deleted one is listed", "  redis.call('ZREM', catalogue, id)\n", "", "change_schedule"
    ),
    _script(
        "change_schedule",
        "a pause of what is paused counts",
        "  if head.flags == PAUSED then\n    return {'ok'}\n  end\n",
        "",
        "change_schedule",
    ),
    _script(
        "change_schedule", "written before all was read", "redis.call('ZCARD', catalogue)\n", "", "change_schedule"
    ),
    _script(
        "due_schedules", "records of any size", "#records == 0 or total_bytes <= max_bytes", "true", "due_schedules"
    ),
    _script("due_schedules", "all workers get the same", "math.floor(spread *", "math.floor(0 *", "due_schedules"),
    _script("due_schedules", "one fault fails all", "pcall(look_at, id)", "true, look_at(id)", "due_schedules"),
    _script("due_schedules", "a fault is met again at once", "partition.now_ms + AGAIN_MS", "0", "due_schedules"),
    _script(
        "due_schedules", "the set decides", "if head.next_ms > partition.now_ms then", "if false then", "due_schedules"
    ),
    _script(
        "due_schedules", "what is gone stays listed", "    redis.call('ZREM', schedules, id)\n", "", "due_schedules"
    ),
    _script("due_schedules", "stops when Redis is full", "redis.call('ZREM', schedules, '')\n", "", "due_schedules"),
    _script("fire_schedule", "any revision", "head.revision ~= revision or head", "head", "change_schedule"),
    _script("fire_schedule", "any instant", " or head.next_ms ~= due_ms", "", "fire_schedule"),
    _script(
        "fire_schedule",
        "a repeated call is stale",
        "and 'already' or 'stale'",
        "and 'stale' or 'stale'",
        "fire_schedule",
    ),
    _script(
        "fire_schedule",
        "what is fired is due again",
        "    redis.call('ZADD', schedules, next_ms, id)\n",
        "",
        "fire_schedule",
    ),
    _script("fire_schedule", "the record does not move on", "  head.next_ms = next_ms\n", "", "fire_schedule"),
    _script(
        "fire_schedule",
        "no history",
        "ids_bytes, head.error_bytes = instant_ms, #ids, #fault",
        "ids_bytes, head.error_bytes = instant_ms, 0, 0",
        "fire_schedule",
    ),
    _script("fire_schedule", "what is passed over is noted", "if instant_ms > 0 then", "if true then", "fire_schedule"),
    _script(
        "fire_schedule", "one firing fails all", "pcall(fire, at, behind)", "true, fire(at, behind)", "fire_schedule"
    ),
    _script(
        "fire_schedule",
        "written before all was read",
        "    look_at_message(partition, message)\n    if",
        "    look_at_message(partition, message)\n    store_message(partition, log, message)\n"
        "    message.is_stored = true\n    if",
        "fire_schedule",
    ),
    _script("fire_schedule", "an old look at the lane", "      message.look = nil\n", "", "fire_schedule"),
    _script(
        "fire_schedule", "written before the set was read", "redis.call('ZCARD', schedules)\n", "", "fire_schedule"
    ),
    _script("fire_schedule", "written before the log was read", "  redis.call('XLEN', log)\n", "", "fire_schedule"),
    _script("fire_schedule", "no limits for its key", "limits = ARGV[at + 6]", "limits = ''", "fire_schedule"),
    _script("fire_schedule", "no doorbell for a delay", "end_of_storing(partition)\n", "", "fire_schedule"),
    _script("postpone_schedule", "any revision", " and head.revision == revision", "", "postpone_schedule"),
    _script("postpone_schedule", "any instant", " and head.next_ms == due_ms", "", "postpone_schedule"),
    _script(
        "postpone_schedule",
        "stops when Redis is full",
        "  redis.call('ZREM', schedules, '')\n",
        "",
        "postpone_schedule",
    ),
)

PYTHON = (
    _mutant("a limit below zero is none", STORE, "most = max(0, ", "most = abs(", "storage/put_schedule"),
    _mutant("a lost reply is stale", STORE, 'word == b"already" and is_repeated', "False", "storage/fire_schedule"),
    _mutant(
        "another's firing is one's own",
        STORE,
        'word == b"already" and is_repeated',
        'word == b"already"',
        "storage/fire_schedule",
    ),
    _mutant(
        "a broken lane is an outage",
        STORE,
        "error if isinstance(error, StorageFull) else StorageError(str(error))",
        "error",
        "storage/fire_schedule",
    ),
    _mutant(
        "one that cannot be encoded fails all",
        STORE,
        "except ValueError as error:\n                    results",
        "except ZeroDivisionError as error:\n                    results",
        "storage/fire_schedule",
    ),
    _mutant("calls of any size", STORE, "if count and total_bytes > MAX_BYTES:", "if False:", "storage/fire_schedule"),
    _mutant(
        "an outage hides what was fired",
        STORE,
        "except (StorageUnavailable, StorageFull) as error:",
        "except ZeroDivisionError as error:",
        "storage/fire_schedule",
    ),
    _mutant(
        "messages elsewhere come last",
        STORE,
        "        await self._publish_elsewhere(firings, results)\n",
        "",
        "storage/firing_elsewhere",
    ),
    _mutant(
        "who was held up publishes elsewhere",
        STORE,
        "bool(head) and fence_of_schedule(head) == (firing.stored.revision, firing.stored.next_fire_ms)",
        "True",
        "storage/firing_elsewhere",
    ),
    _mutant("what fails elsewhere moves on", STORE, "if problem is not None}", "if False}", "storage/firing_elsewhere"),
    _mutant(
        "a resumption that was overtaken is done",
        STORE,
        'if word != b"changed":',
        "if True:",
        "storage/change_schedule",
    ),
    _mutant(
        "a deletion that was heard of late is none",
        STORE,
        'reply[0] == b"ok" or is_repeated',
        'reply[0] == b"ok"',
        "storage/change_schedule",
    ),
    _mutant("what never fires is taken", STORE, "if next_ms is None:", "if False:", "storage/put_schedule"),
    _mutant(
        "an unreadable error ends the worker",
        CODEC,
        "except UnicodeDecodeError as error:",
        "except ZeroDivisionError as error:",
        "storage/due_schedules",
    ),
    _mutant(
        "an error is cut within a character",
        CODEC,
        'decode(errors="ignore")',
        'decode(errors="replace")',
        "storage/fire_schedule",
    ),
    _mutant(
        "one that cannot be planned ends the worker",
        LOOP,
        "except Exception as error:",
        "except ZeroDivisionError as error:",
        "worker/scheduler",
    ),
    _mutant(
        "one that cannot be fired ends the pass",
        LOOP,
        "case StorageError():\n",
        "case StorageError() if False:\n",
        "worker/scheduler",
    ),
    _mutant(
        "a full Redis is an outage",
        LOOP,
        "case StorageUnavailable():",
        "case StorageUnavailable() | StorageFull():",
        "worker/scheduler",
    ),
    _mutant(
        "a full Redis is asked without a pause", LOOP, "        if held:\n", "        if False:\n", "worker/scheduler"
    ),
    _mutant(
        "a full Redis is told again and again", LOOP, "if held and not self._is_held:", "if held:", "worker/scheduler"
    ),
    _mutant(
        "an outage is passed over",
        LOOP,
        "        if failure is not None:\n            raise failure\n",
        "",
        "worker/scheduler",
    ),
    _mutant(
        "an outage is told as its fault",
        LOOP,
        "        await self._store.postpone(stored, delay_ms)\n        telemetry.schedule_stuck(stored, error)",
        "        telemetry.schedule_stuck(stored, error)\n        await self._store.postpone(stored, delay_ms)",
        "worker/scheduler",
    ),
    _mutant(
        "groups that are away are asked again and again",
        LOOP,
        "                self._failure = error\n",
        "",
        "worker/scheduler",
    ),
    _mutant(
        "a rest in the middle of a batch",
        LOOP,
        "            sleep_ms = 0\n",
        "            sleep_ms = LONGEST_SLEEP_MS\n",
        "worker/scheduler",
    ),
    _mutant(
        "a stopped clock is waited for",
        LOOP,
        " or (due.is_frozen and due.next_fire_ms > due.now_ms)",
        "",
        "worker/scheduler",
    ),
    _mutant("nobody is woken", "worker/assembly.py", "        schedulers[partition].wake()\n", "", "worker/scheduler"),
    Mutant(
        name="supervisor.py: firings go on while the worker stops",
        path="worker/supervisor.py",
        old="*loops.schedulers, *janitors], drain",
        new="*janitors], drain",
        selection=["tests/worker/test_supervisor.py", "-k", "firing_under_way"],
    ),
)

SCHEDULES = (*RULES, *SCRIPTS, *PYTHON)

"""The places about topic logs that are broken, and the tests that must notice."""

from tests.mutants.mutant import Mutant
from tests.mutants.mutant import script_mutant as _script

_LOG = "qstash_clone/storage/topic_log.py"
_CATALOGUE = "qstash_clone/storage/topic_catalogue.py"
_GROUPS = "qstash_clone/storage/consumer_group_store.py"
_JANITOR = "worker/topic_janitor.py"


def _mutant(name: str, path: str, old: str, new: str, *selection: str) -> Mutant:
    return Mutant(name=f"{path.split('/')[-1]}: {name}", path=path, old=old, new=new, selection=selection)


APPEND = (
    _script(
        "append_records",
        "a repeated call appends again",
        "if note and string.sub(note, 1, #call) == call then",
        "if false then",
        "append_records",
    ),
    _script(
        "append_records",
        "the note of another call counts",
        "if note and string.sub(note, 1, #call) == call then",
        "if note then",
        "append_records",
    ),
    _script("append_records", "a late try appends", "if log.is_late then", "if false then", "append_records"),
    _script("append_records", "a repeated call is late", "note) > struct", "note) >= struct", "append_records"),
    _script("append_records", "nothing is noted", "if log.noted == 0 then", "if false then", "append_records"),
    _script(
        "append_records",
        "a part of the call is noted",
        "log.first, log.place, log.time_ms), 'PX'",
        "log.first, 1, log.time_ms), 'PX'",
        "append_records",
    ),
    _script(
        "append_records",
        "every unit of a repeated call has the first place",
        "log.place = log.place + count",
        "log.place = log.place",
        "append_records",
    ),
    _script(
        "append_records",
        "times of a repeated call are those of now",
        "local offset, time_ms = log.first + log.place, log.time_ms",
        "local offset, time_ms = log.first + log.place, partition.now_ms + 1",
        "append_records",
    ),
    _script(
        "append_records",
        "the next offset is that of before",
        "'HSET', log.state, 'n', string.format('%.0f', log.behind)",
        "'HSET', log.state, 'n', string.format('%.0f', log.first)",
        "append_records",
    ),
    _script(
        "append_records",
        "bytes miss the time",
        "log.bytes + #times + #encoded",
        "log.bytes + #encoded",
        "append_records",
    ),
    _script(
        "append_records", "the index has any record", "if time_ms > log.latest_ms then", "if true then", "find_offset"
    ),
    _script(
        "append_records", "one unit fails all", "pcall(append, at, count)", "true, append(at, count)", "append_records"
    ),
    _mutant(
        "calls have no number", _LOG, "self._calls += 1", "self._calls += 0", "tests/storage/test_append_records.py"
    ),
    _mutant(
        "the last unit goes first",
        _LOG,
        "outcomes = [grouper.submit(unit) for unit in _units_of(topic, partition, records)]",
        "outcomes = [grouper.submit(unit) for unit in _units_of(topic, partition, records)[::-1]][::-1]",
        "tests/storage/test_append_records.py",
    ),
)

LOGS = (
    _script(
        "include/topic",
        "any generation will do",
        "if fields[1] ~= generation then",
        "if not fields[1] then",
        "append_records",
    ),
    _script(
        "include/topic",
        "lost records are not missed",
        "if length ~= log.behind - log.start then",
        "if false then",
        "append_records",
    ),
    _script(
        "include/topic",
        "other entries are taken for those of the offset",
        "if not entries[1] or entries[1][1] ~= entry_of(offset) then",
        "if not entries[1] then",
        "read_records",
    ),
    _script(
        "include/topic", "a hundred large ones at once", "math.min(10, most,", "math.min(100, most,", "read_records"
    ),
    _script(
        "include/topic",
        "the time of the append is that of the producer",
        "return time_ms, (struct.unpack('>I8', record, TIME_BYTES + 1))",
        "return time_ms, time_ms",
        "trim_topic_logs",
    ),
    _script(
        "make_topic_logs",
        "logs are made anew",
        "if stored < tonumber(generation) then",
        "if true then",
        "topic_catalogue",
    ),
    _script(
        "make_topic_logs",
        "what was left of an earlier topic stays",
        "redis.call('UNLINK', log.state, log.stream, log.index)",
        "redis.call('UNLINK', log.state)",
        "topic_catalogue",
    ),
    _script(
        "drop_topic_logs",
        "logs of a later topic go",
        "if stored and tonumber(stored) <= tonumber(generation) then",
        "if stored then",
        "topic_catalogue",
    ),
    _script(
        "replace_entry",
        "whatever is there is replaced",
        "if stored ~= expected then",
        "if false then",
        "url_groups",
    ),
    _mutant(
        "logs that were made for a deleted topic stay",
        _CATALOGUE,
        "await self._drop_if_gone(name, stored)",
        "pass",
        "tests/storage/test_topic_catalogue.py",
    ),
    _mutant(
        "broken-off deletions are left to others",
        _CATALOGUE,
        "        for name in deleted:\n            await self._load(name)\n",
        "",
        "tests/storage/test_topic_catalogue.py",
    ),
)

READING = (
    _script(
        "read_records",
        "from an offset that is gone",
        "log.from = math.max(log.start, math.min(tonumber(ARGV[at + 3]), log.behind))",
        "log.from = math.min(tonumber(ARGV[at + 3]), log.behind)",
        "trim_topic_logs",
    ),
    _script(
        "read_records",
        "any number of bytes",
        "if #record > bytes and not is_first then",
        "if false then",
        "read_records",
    ),
    _script(
        "read_records",
        "a large record is never read",
        "local is_first = true",
        "local is_first = false",
        "read_records",
    ),
    _script(
        "read_records",
        "the first log takes all",
        "math.ceil(records_left / math.max(1, #logs)), ",
        "records_left, ",
        "read_records",
    ),
    _script("read_records", "what is left is left", "  read_on(log, records_left, bytes_left)\n", "", "read_records"),
    _script("read_records", "one record is passed over", "log.at = log.at + 1", "log.at = log.at + 2", "read_records"),
    _script(
        "find_offset",
        "the index is trusted blindly",
        "if earlier or log.start == 0 then",
        "if true then",
        "find_offset",
    ),
    _script("find_offset", "too early by itself", "'(' .. ARGV[5], '-inf'", "ARGV[5], '-inf'", "find_offset"),
    _script(
        "find_offset",
        "the last before the next entry is not looked at",
        "behind_earlier + INDEXED_EVERY)",
        "behind_earlier + INDEXED_EVERY - 2)",
        "find_offset",
    ),
    _script("find_offset", "found where it only stopped", "{'ok', 'more', at}", "{'ok', 'found', at}", "find_offset"),
)

RETENTION = (
    _script(
        "trim_topic_logs", "a moment early", "append_ms) < oldest_ms", "append_ms) <= oldest_ms", "trim_topic_logs"
    ),
    _script(
        "trim_topic_logs",
        "a timestamp to come does not count",
        "local is_old = math.max(time_ms, append_ms)",
        "local is_old = append_ms",
        "trim_topic_logs",
    ),
    _script(
        "trim_topic_logs",
        "for ever has an end",
        "local oldest_ms = retention_ms < 0 and -1 or",
        "local oldest_ms = retention_ms < 0 and partition.now_ms or",
        "trim_topic_logs",
    ),
    _script(
        "trim_topic_logs",
        "what just fits goes",
        "log.bytes > retention_bytes",
        "log.bytes >= retention_bytes",
        "trim_topic_logs",
    ),
    _script(
        "trim_topic_logs",
        "bytes stay counted",
        "log.start + 1, log.bytes - #record",
        "log.start + 1, log.bytes",
        "trim_topic_logs",
    ),
    _script(
        "trim_topic_logs",
        "one entry too many",
        "'MINID', entry_of(log.start)",
        "'MINID', entry_of(log.start + 1)",
        "trim_topic_logs",
    ),
    _script("trim_topic_logs", "entries of the index stay", "if before > 0 then", "if false then", "trim_topic_logs"),
    _script(
        "trim_topic_logs", "the rest is for ever", "      return true\n", "      return false\n", "trim_topic_logs"
    ),
    _script(
        "trim_topic_logs",
        "another log has more",
        "(at - first) / WANTED_ARGUMENTS",
        "0",
        "trim_topic_logs",
    ),
    _mutant(
        "rounds wait for logs that have more",
        _JANITOR,
        "        if not self._unseen:",
        "        if not self._unseen and not self._unfinished:",
        "tests/worker/test_topic_janitor.py",
    ),
)

CONSUMERS = (
    _script(
        "save_consumer_group",
        "whatever is there is replaced",
        "if revision ~= expected then",
        "if false then",
        "save_consumer_group",
    ),
    _script(
        "save_consumer_group",
        "a repeated call finds another's work",
        "string.sub(head, 9) == writer",
        "false",
        "save_consumer_group",
    ),
    _script(
        "save_consumer_group",
        "another's work is its own",
        "and string.sub(head, 9) == writer then",
        "then",
        "save_consumer_group",
    ),
    _mutant(
        "what may have been saved was not",
        _GROUPS,
        "if may_have_run and not is_saved:",
        "if False:",
        "tests/storage/test_save_consumer_group.py",
    ),
)

TOPICS = (*APPEND, *LOGS, *READING, *RETENTION, *CONSUMERS)

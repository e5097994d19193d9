--[[
finish.lua: messages that are over: with the log on, their records stay for as long as the log, and are counted.

The entry with which a record becomes dispensable (D, X, Z) says what it counts, and meta holds the sum as `fb` (finished
bytes). Whoever drops such an entry drops the record too and takes its bytes off the sum. Dead letters are not counted.
]]
-- What a record needs in Redis beside its bytes: its key, two dictionary entries, and its entries in the log.
local RECORD_OVERHEAD_BYTES = 250

-- retention_ms: of the log, or without one as long as a call may be repeated.
local function retire_record(partition, log, key, id, letter, retention_ms)
  redis.call('PEXPIRE', key, retention_ms)
  if log then
    local bytes = redis.call('STRLEN', key) + RECORD_OVERHEAD_BYTES
    log_event(partition, log, letter, id, struct.pack('>I4', bytes))
    partition.finished_bytes = (partition.finished_bytes or 0) + bytes
  end
end

-- A message ends delivered (D) or cancelled (X).
local function finish_message(partition, log, key, id, head, state, letter, retention_ms)
  head.state, head.due_ms = state, partition.now_ms
  write_head(key, head)
  retire_record(partition, log, key, id, letter, retention_ms)
end

-- Once, at the end of a script that retired records.
local function count_finished(partition, meta)
  if partition.finished_bytes then
    redis.call('HINCRBY', meta, 'fb', partition.finished_bytes)
  end
end

--[[
partition.lua: the first step of every script: is this the store the caller means, and what time is it?

open_partition(meta_key, version) -> partition, refusal
  partition holds the names of the keys that the included files share, and the time: now_ms is that of messages, which
  a test may have moved or stopped, real_ms that of leases, workers and signatures.
  refusal is what the script has to return at once: {"no_store"}, or {"version", stored version}.
]]
local function open_partition(meta_key, version)
  local fields = redis.call('HMGET', meta_key, 'v', 'cap', 'off', 'ck', 'nk', 'fz')
  if not fields[1] then
    return nil, {'no_store'}
  end
  if fields[1] ~= version then
    return nil, {'version', fields[1]}
  end
  local time = redis.call('TIME')
  local real_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  local prefix = string.sub(meta_key, 1, -5)
  return {
    prefix = prefix,
    ready = prefix .. 'ready',
    timers = prefix .. 'timers',
    ring = prefix .. 'ring',
    parked = prefix .. 'parked',
    blocked = prefix .. 'blocked',
    windows = prefix .. 'windows',
    queues = prefix .. 'queues',
    flows = prefix .. 'flows',
    capacity = tonumber(fields[2]) or 0,
    now_ms = tonumber(fields[6]) or real_ms + (tonumber(fields[3]) or 0),
    real_ms = real_ms,
    is_moved = (fields[3] and fields[3] ~= '0') or fields[6] ~= false,
    is_frozen = fields[6] ~= false,
    last_entries = {}, -- that this script has dated itself
    looked_at = {},
    current_key = fields[4],
    next_key = fields[5],
  }
end

-- Reads a key that is going to be written, so that a fault surfaces while nothing was written yet: once for each key,
-- because nothing comes in between. `command` reads what is of the key's type.
local function look_at(partition, command, key)
  if not partition.looked_at[key] then
    redis.call(command, key)
    partition.looked_at[key] = true
  end
end

local function last_entry(stream)
  local fields = redis.call('XINFO', 'STREAM', stream)
  for at = 1, #fields, 2 do
    if fields[at] == 'last-generated-id' then
      local ms, sequence = string.match(fields[at + 1], '^(%d+)-(%d+)$')
      return {ms = tonumber(ms), sequence = tonumber(sequence)}
    end
  end
end

local function append_behind(stream, last, field, value)
  local entry = redis.pcall('XADD', stream, string.format('%.0f-%.0f', last.ms, last.sequence + 1), field, value)
  if type(entry) == 'string' then
    last.sequence = last.sequence + 1
    return entry
  end
  if not string.find(entry.err, 'equal or smaller', 1, true) then
    error(entry.err)
  end
  return nil
end

-- Adds an entry whose id is the time of messages. While that is Redis's own time, Redis knows how to number them.
local function append_dated(partition, stream, field, value)
  if not partition.is_moved then
    return redis.call('XADD', stream, '*', field, value)
  end
  local last = partition.last_entries[stream] or {ms = partition.now_ms, sequence = -1}
  local entry = append_behind(stream, last, field, value)
  if not entry then
    -- Not the first of its millisecond, which lasts for as long as the clock stands still.
    last = last_entry(stream)
    entry = append_behind(stream, last, field, value)
  end
  partition.last_entries[stream] = last
  return entry
end

-- An entry without an id: whoever takes it looks at the timers again.
local function ring_doorbell(partition)
  if partition.capacity > 0 then
    redis.call('XADD', partition.ready, '*', 'b', '1')
  end
end

-- Redis 7 raises a table, 6.2 a string.
local function error_text(problem)
  if type(problem) == 'table' then
    problem = problem.err
  end
  return 'error ' .. tostring(problem)
end

-- Redis lets a script go on writing at its memory limit if its first write is one that frees or only moves. This is
-- such a write that changes nothing.
local function write_when_full(ready, group)
  redis.call('XACK', ready, group, '0-0')
end

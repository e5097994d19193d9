--[[
topic.lua: the log of one partition of a topic, see docs/reference/redis-keys.md.

A record at offset n is the stream entry n+1, field r: 8 bytes of timestamp, or, where the producer has set it, 8 bytes of
timestamp with the highest bit set and 8 bytes of the time of the append; behind them what the producer has encoded.
]]
local FROM_PRODUCER = string.byte('\128')
local TIME_BYTES = 8

local function topic_log_keys(prefix, topic, number)
  local name = topic .. ':' .. number
  return {name = name, state = prefix .. 'tp:' .. name, stream = prefix .. 'tl:' .. name, index = prefix .. 'ti:' .. name}
end

-- The log if it is the one of this generation of its topic, else nil. Raises an error for one that has lost records.
local function open_topic_log(prefix, topic, number, generation)
  local log = topic_log_keys(prefix, topic, number)
  local fields = redis.call('HMGET', log.state, 'g', 'n', 's', 'b', 'm', 'x')
  if fields[1] ~= generation then
    return nil
  end
  log.behind, log.start, log.bytes = tonumber(fields[2]), tonumber(fields[3]), tonumber(fields[4])
  log.latest_ms, log.indexed = tonumber(fields[5]), tonumber(fields[6])
  local length = redis.call('XLEN', log.stream)
  if length ~= log.behind - log.start then
    error(string.format('the log %s has %.0f records, and should have %.0f', log.name, length, log.behind - log.start))
  end
  return log
end

local function entry_of(offset)
  return string.format('%.0f-0', offset + 1)
end

-- The next entries from an offset on, about so many bytes of them, at least one. They may be much larger than the mean, and
-- Redis takes more than half a second to hand a hundred of 1 MiB to a script: it is ten at most. Raises an error if there is
-- no record at the offset.
local function next_entries(log, offset, most, bytes)
  local mean_bytes = math.max(1, log.bytes / math.max(1, log.behind - log.start))
  local count = math.max(1, math.min(10, most, math.ceil(bytes / mean_bytes)))
  local entries = redis.call('XRANGE', log.stream, entry_of(offset), '+', 'COUNT', count)
  if not entries[1] or entries[1][1] ~= entry_of(offset) then
    error(string.format('the log %s has no record at offset %.0f', log.name, offset))
  end
  return entries
end

-- When a record was made according to its producer, and when it was appended.
local function times_of(record)
  local time_ms = struct.unpack('>I8', '\0' .. string.sub(record, 2, TIME_BYTES))
  if string.byte(record, 1) < FROM_PRODUCER then
    return time_ms, time_ms
  end
  return time_ms, (struct.unpack('>I8', record, TIME_BYTES + 1))
end

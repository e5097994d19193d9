--[[
append_records.lua: append records to logs of topics; offsets are dense.

A unit is several records for one log that are appended together or not at all. What a call has appended to a log is noted
with its number, so that a repeated one finds it. One that comes behind a later call was given up long ago, and what is
stored of it was told already: it appends nothing.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version   int
  2  producer  8 bytes  of the process that calls
  3  call      8 bytes  its number; calls of one process come one after the other
  4  note_ms   int      for how long a call may be repeated
  5+ units     four each: topic, number of its partition, generation of the topic, number of records; and behind them two
               per record: timestamp in unix ms or "" for that of the append, encoded record
DERIVES  state, stream and index of each log, note of the producer for each
RETURNS
  {"ok", word, ...}   one word per unit: "appended <first offset> <time of the append in unix ms>", "gone" (the topic was
                      deleted) or "error <text>"
  {"no_store"} | {"version", stored version}
COST  O(number of records)
]]
--@include partition
--@include topic
local meta = KEYS[1]
local version, producer, call, note_ms, first = ARGV[1], ARGV[2], ARGV[3], ARGV[4], 5

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local UNIT_ARGUMENTS, RECORD_ARGUMENTS, INDEXED_EVERY = 4, 2, 64
local NOTE = '>I8I8I8'
local logs, changed = {}, {}

local function log_of(topic, number, generation)
  local name = topic .. ':' .. number .. ':' .. generation
  if logs[name] == nil then
    local log = open_topic_log(partition.prefix, topic, number, generation)
    if log then
      redis.call('ZCARD', log.index)
      log.note = partition.prefix .. 'tr:' .. producer .. ':' .. log.name
      local note = redis.call('GET', log.note)
      log.place, log.noted, log.first, log.time_ms = 0, 0, log.behind, partition.now_ms
      if note and string.sub(note, 1, #call) == call then
        log.first, log.noted, log.time_ms = struct.unpack(NOTE, note, #call + 1)
      end
      log.is_late = note and struct.unpack('>I8', note) > struct.unpack('>I8', call)
    end
    logs[name] = log or false
  end
  return logs[name]
end

local function append_record(log, time, encoded)
  local time_ms = tonumber(time) or partition.now_ms
  local times = struct.pack('>I8', time_ms)
  if time ~= '' then
    times = string.char(string.byte(times, 1) + FROM_PRODUCER)
      .. string.sub(times, 2) .. struct.pack('>I8', partition.now_ms)
  end
  redis.call('XADD', log.stream, entry_of(log.behind), 'r', times .. encoded)
  if time_ms > log.latest_ms then
    log.latest_ms = time_ms
    if log.behind >= log.indexed + INDEXED_EVERY then
      redis.call('ZADD', log.index, time_ms, string.format('%.0f', log.behind))
      log.indexed = log.behind
    end
  end
  log.behind = log.behind + 1
  log.bytes = log.bytes + #times + #encoded
end

local function append(at, count)
  local log = log_of(ARGV[at], ARGV[at + 1], ARGV[at + 2])
  if not log then
    return 'gone'
  end
  if log.is_late then
    return 'error a later call has appended to the log'
  end
  local offset, time_ms = log.first + log.place, log.time_ms
  if log.place >= log.noted then
    offset, time_ms = log.behind, partition.now_ms
    for place = at + UNIT_ARGUMENTS, at + UNIT_ARGUMENTS + RECORD_ARGUMENTS * (count - 1), RECORD_ARGUMENTS do
      append_record(log, ARGV[place], ARGV[place + 1])
    end
    changed[log.name] = log
  end
  log.place = log.place + count
  return string.format('appended %.0f %.0f', offset, time_ms)
end

local reply, at = {'ok'}, first
while at <= #ARGV do
  local count = tonumber(ARGV[at + 3])
  local done, word = pcall(append, at, count)
  reply[#reply + 1] = done and word or error_text(word)
  at = at + UNIT_ARGUMENTS + RECORD_ARGUMENTS * count
end
for _, log in pairs(changed) do
  redis.call('HSET', log.state, 'n', string.format('%.0f', log.behind), 'b', string.format('%.0f', log.bytes),
    'm', string.format('%.0f', log.latest_ms), 'x', string.format('%.0f', log.indexed))
  -- With units of an earlier try before these, the offsets of a further try would not be found: then it appends again.
  if log.noted == 0 then
    redis.call('SET', log.note, call .. struct.pack(NOTE, log.first, log.place, log.time_ms), 'PX', note_ms)
  end
end
return reply

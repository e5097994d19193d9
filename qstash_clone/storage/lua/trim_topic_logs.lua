--[[
trim_topic_logs.lua: retention of topics: the oldest records of logs, while they are too old or too many.

A record is too old when both the time of its producer and that of its append are past the retention, so none goes early.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version    int
  2  max_bytes  int  of records to drop from each log, and one to look at; more is for the next call
  3+ wanted     five each: topic, number of its partition, generation of the topic, retention in ms, in bytes; -1 is none
DERIVES  state, stream and index of each log
RETURNS
  {"ok", dropped, {place, ...}, error, ...}   records dropped, which of the logs (from 0) may have more to drop, and what
                                              is wrong with logs that were left alone
  {"no_store"} | {"version", stored version}
COST  O(logs), the first record of each, and the records dropped: at most 100 of each log
]]
--@include partition
--@include topic
local meta = KEYS[1]
local version, max_bytes, first = ARGV[1], tonumber(ARGV[2]), 3

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local WANTED_ARGUMENTS, MAX_DROPPED = 5, 100
local dropped, unfinished = 0, {}

-- Entries of records that were dropped.
local function shorten_index(log)
  local before = 0
  for _, offset in ipairs(redis.call('ZRANGE', log.index, 0, 100)) do
    before = before + (tonumber(offset) < log.start and 1 or 0)
  end
  if before > 0 then
    redis.call('ZREMRANGEBYRANK', log.index, 0, before - 1)
  end
end

-- Moves the start of a log behind what has to go. Returns whether there may be more of that.
local function pass_over(log, oldest_ms, retention_bytes)
  local left, bytes_left, together = MAX_DROPPED, max_bytes, 1
  while log.start < log.behind do
    if left == 0 or bytes_left <= 0 then
      return true
    end
    for _, entry in ipairs(next_entries(log, log.start, math.min(left, together), bytes_left)) do
      local record = entry[2][2]
      local time_ms, append_ms = times_of(record)
      local is_old = math.max(time_ms, append_ms) < oldest_ms
      if not (is_old or (retention_bytes >= 0 and log.bytes > retention_bytes)) then
        return false
      end
      log.start, log.bytes = log.start + 1, log.bytes - #record
      left, bytes_left = left - 1, bytes_left - #record
    end
    -- In most logs nothing has to go, which their first record shows.
    together = left
  end
  return false
end

-- Returns whether there may be more to drop.
local function trim(log, retention_ms, retention_bytes)
  local before = log.start
  local oldest_ms = retention_ms < 0 and -1 or partition.now_ms - retention_ms
  local has_more = pass_over(log, oldest_ms, retention_bytes)
  if log.start > before then
    redis.call('EXISTS', log.index)
    redis.call('XTRIM', log.stream, 'MINID', entry_of(log.start))
    redis.call('HSET', log.state, 's', string.format('%.0f', log.start), 'b', string.format('%.0f', log.bytes))
    shorten_index(log)
  end
  dropped = dropped + log.start - before
  return has_more
end

local function trim_log(at)
  local log = open_topic_log(partition.prefix, ARGV[at], ARGV[at + 1], ARGV[at + 2])
  if log and trim(log, tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])) then
    unfinished[#unfinished + 1] = (at - first) / WANTED_ARGUMENTS
  end
end

local reply = {'ok', 0, unfinished}
for at = first, #ARGV, WANTED_ARGUMENTS do
  local done, problem = pcall(trim_log, at)
  if not done then
    reply[#reply + 1] = error_text(problem)
  end
end
reply[2] = dropped
return reply

--[[
trim_topic_logs.lua: retention of topics: the oldest records of logs, while they are too old or too many.

A record is too old when both the time of its producer and that of its append are past the retention, so none goes early.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version    int
  2  max_bytes  int  of records to look at in each log; more is for the next call
  3+ wanted     five each: topic, number of its partition, generation of the topic, retention in ms, in bytes; -1 is none
DERIVES  state, stream and index of each log
RETURNS
  {"ok", dropped, unfinished, error, ...}   records dropped, how many logs may have more to drop, and what is wrong with
                                            logs that were left alone
  {"no_store"} | {"version", stored version}
COST  O(logs), and the records looked at: at most 100 of each log
]]
--@include partition
--@include topic
local meta = KEYS[1]
local version, max_bytes, first = ARGV[1], tonumber(ARGV[2]), 3

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local WANTED_ARGUMENTS = 5
local dropped, unfinished = 0, 0

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

local function trim(log, retention_ms, retention_bytes)
  local oldest_ms = retention_ms < 0 and -1 or partition.now_ms - retention_ms
  local entries = redis.call('XRANGE', log.stream, '-', '+', 'COUNT', entries_within(log, max_bytes))
  local before = log.start
  for _, entry in ipairs(entries) do
    local record = entry[2][2]
    local time_ms, append_ms = times_of(record)
    local is_old = math.max(time_ms, append_ms) < oldest_ms
    if not (is_old or (retention_bytes >= 0 and log.bytes > retention_bytes)) then
      break
    end
    log.start, log.bytes = log.start + 1, log.bytes - #record
  end
  if log.start > before then
    redis.call('EXISTS', log.index)
    redis.call('XTRIM', log.stream, 'MINID', entry_of(log.start))
    redis.call('HSET', log.state, 's', string.format('%.0f', log.start), 'b', string.format('%.0f', log.bytes))
    shorten_index(log)
  end
  dropped = dropped + log.start - before
  unfinished = unfinished + (log.start - before == #entries and #entries > 0 and 1 or 0)
end

local function trim_log(at)
  local log = open_topic_log(partition.prefix, ARGV[at], ARGV[at + 1], ARGV[at + 2])
  if log and log.behind > log.start then
    trim(log, tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]))
  end
end

local reply = {'ok', 0, 0}
for at = first, #ARGV, WANTED_ARGUMENTS do
  local done, problem = pcall(trim_log, at)
  if not done then
    reply[#reply + 1] = error_text(problem)
  end
end
reply[2], reply[3] = dropped, unfinished
return reply

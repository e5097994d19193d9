--[[
find_offset.lua: the first record of a log with a timestamp or a later one, whatever the order of timestamps.

The index has the offset and the timestamp of a record that is later than all before it, once in 64 records. What lies
before the last entry that is too early is too early as a whole, and of what follows only the next 64 records, or the next
entry, can be the first.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version     int
  2  topic       string
  3  number      int     of its partition
  4  generation  int     of the topic
  5  time_ms     int     unix ms
  6  from        int     offset to go on from, or -1
DERIVES  state, stream and index of the log
RETURNS
  {"ok", "found", offset}   or the end of the log
  {"ok", "more", offset}    it is not before this one; to be asked again
  {"ok", "gone"}            the topic was deleted
  {"no_store"} | {"version", stored version}
COST  O(records looked at): at most 100, and log(entries of the index)
]]
--@include partition
--@include topic
local meta = KEYS[1]
local version, topic, number, generation = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local wanted_ms, from = tonumber(ARGV[5]), tonumber(ARGV[6])

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local INDEXED_EVERY, LOOK_AT, LOOK_AT_BYTES = 64, 100, 1048576
local log = open_topic_log(partition.prefix, topic, number, generation)
if not log then
  return {'ok', 'gone'}
end
local earlier = redis.call('ZREVRANGEBYSCORE', log.index, '(' .. ARGV[5], '-inf', 'LIMIT', 0, 1)[1]
local behind_earlier = earlier and tonumber(earlier) + 1 or 0
local at = math.max(log.start, behind_earlier, from)
local later = redis.call('ZRANGEBYSCORE', log.index, ARGV[5], '+inf', 'LIMIT', 0, 1)[1]
-- Without an entry before it, records that were dropped may have been later than all that are here now.
local last = log.behind
if earlier or log.start == 0 then
  last = math.min(log.behind, behind_earlier + INDEXED_EVERY)
end
local left, bytes_left = LOOK_AT, LOOK_AT_BYTES
while at < last and left > 0 and bytes_left > 0 do
  for _, entry in ipairs(next_entries(log, at, math.min(left, last - at), bytes_left)) do
    local record = entry[2][2]
    if times_of(record) >= wanted_ms then
      return {'ok', 'found', at}
    end
    at, left, bytes_left = at + 1, left - 1, bytes_left - #record
  end
end
if at < last then
  return {'ok', 'more', at}
end
if last == log.behind then
  return {'ok', 'found', log.behind}
end
return {'ok', 'found', later and tonumber(later) or log.behind}

--[[
make_topic_logs.lua: empty logs for partitions of a topic; those that are there already stay as they are.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version     int
  2  topic       string
  3  generation  int       of the topic
  4+ numbers     int       of the partitions
DERIVES  state, stream and index of each log
RETURNS
  {"ok", made}   how many are of this generation now; others belong to a later topic of the same name
  {"no_store"} | {"version", stored version}
COST  O(partitions)
]]
--@include partition
--@include topic
local meta = KEYS[1]
local version, topic, generation, first = ARGV[1], ARGV[2], ARGV[3], 4

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local made = 0
for at = first, #ARGV do
  local log = topic_log_keys(partition.prefix, topic, ARGV[at])
  local stored = tonumber(redis.call('HGET', log.state, 'g') or 0)
  if stored < tonumber(generation) then
    -- Of an earlier topic there is nothing left, unless its deletion broke off.
    redis.call('UNLINK', log.state, log.stream, log.index)
    redis.call('HSET', log.state, 'g', generation, 'n', '0', 's', '0', 'b', '0', 'm', '-1', 'x', '-64')
    stored = tonumber(generation)
  end
  made = made + (stored == tonumber(generation) and 1 or 0)
end
return {'ok', made}

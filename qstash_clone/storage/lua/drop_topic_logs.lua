--[[
drop_topic_logs.lua: remove the logs of a topic that was deleted.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version     int
  2  topic       string
  3  generation  int     logs of a later one stay
  4+ numbers     int     of the partitions
DERIVES  state, stream and index of each log
RETURNS
  {"ok", dropped}
  {"no_store"} | {"version", stored version}
COST  O(partitions); memory is given back in the background
]]
--@include partition
--@include topic
local meta = KEYS[1]
local version, topic, generation, first = ARGV[1], ARGV[2], ARGV[3], 4

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local dropped = 0
for at = first, #ARGV do
  local log = topic_log_keys(partition.prefix, topic, ARGV[at])
  local stored = redis.call('HGET', log.state, 'g')
  if stored and tonumber(stored) <= tonumber(generation) then
    redis.call('UNLINK', log.state, log.stream, log.index)
    dropped = dropped + 1
  end
end
return {'ok', dropped}

--[[
delete_dead_letter.lua: forget one dead letter and its record.

KEYS
  1  meta  hash    description of the partition
  2  dlq   stream  dead letters
ARGV
  1  version  int
  2  entry    string  entry id in the dlq
DERIVES  record of the message
RETURNS
  {"deleted"} | {"not_found"}
  {"no_store"} | {"version", stored version}
COST  O(1)
]]
--@include partition
--@include record
local meta, dlq = KEYS[1], KEYS[2]
local version, entry = ARGV[1], ARGV[2]

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local found = redis.call('XRANGE', dlq, entry, entry)[1]
if not found then
  return {'not_found'}
end
local key = message_key(partition.prefix, found[2][2])
redis.call('STRLEN', key)
redis.call('XDEL', dlq, entry)
redis.call('DEL', key)
return {'deleted'}

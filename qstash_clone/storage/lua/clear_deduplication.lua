--[[
clear_deduplication.lua: forget that a digest was seen; the next publish with it is stored.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version  int
  2  digest   16 bytes
DERIVES  deduplication record, reservation
RETURNS
  {"cleared"} | {"not_found"}
  {"no_store"} | {"version", stored version}
COST  O(1)
]]
--@include partition
--@include dedup
local meta = KEYS[1]
local version, digest = ARGV[1], ARGV[2]

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local is_known = read_deduplication(partition, digest) ~= nil
redis.call('DEL', deduplication_key(partition.prefix, digest), reservation_key(partition.prefix, digest))
return {is_known and 'cleared' or 'not_found'}

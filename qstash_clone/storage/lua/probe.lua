--[[
probe.lua: may the store be written to? Writes the version that is stored already.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version  int
RETURNS
  {"ok"}
  {"no_store"} | {"version", stored version}
COST  O(1)
]]
--@include partition
local meta = KEYS[1]
local version = ARGV[1]

local _, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
-- Like a publish, HSET is refused when Redis is full, read-only or unable to persist.
redis.call('HSET', meta, 'v', version)
return {'ok'}

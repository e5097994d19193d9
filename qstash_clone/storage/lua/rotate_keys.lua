--[[
rotate_keys.lua: replace the signing keys of a partition if they are still of the expected revision.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version   int
  2  revision  int     revision of the new pair: one above the one it replaces
  3  current   string  the new pair
  4  next      string
RETURNS
  {"ok", current, next, revision}   what is stored now: the given pair, or a later one
  {"no_store"} | {"version", stored version}
COST  O(1)
]]
--@include partition
local meta = KEYS[1]
local version, revision, current, next = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]

local _, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
if tonumber(redis.call('HGET', meta, 'kr')) < revision then
  redis.call('HSET', meta, 'ck', current, 'nk', next, 'kr', revision)
end
local fields = redis.call('HMGET', meta, 'ck', 'nk', 'kr')
return {'ok', fields[1], fields[2], fields[3]}

--[[
initialise.lua: make an empty partition ready for use, or read what an existing one is.

Joins nothing that changes: on an existing partition only a missing consumer group is created again.

KEYS
  1  meta   hash    description of the partition
  2  ready  stream  work stream
ARGV
  1  version      int     storage version of the caller
  2  partitions   int     number of partitions wanted
  3  group        string  consumer group
  4  current_key  string  signing keys to seed an empty store with
  5  next_key     string
RETURNS
  {"ok", seeded 0|1, partitions, current_key, next_key, revision}
  {"version", stored version}
COST  O(1)
]]
local meta, ready = KEYS[1], KEYS[2]
local version, partitions, group, current_key, next_key = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local stored = redis.call('HGET', meta, 'v')
if stored and stored ~= version then
  return {'version', stored}
end
local has_stream = redis.call('EXISTS', ready) == 1
if not stored then
  redis.call('HSET', meta, 'v', version, 'p', partitions, 'cap', 0, 'ck', current_key, 'nk', next_key, 'kr', 1)
end
if not has_stream then
  redis.call('XGROUP', 'CREATE', ready, group, '0', 'MKSTREAM')
end
local fields = redis.call('HMGET', meta, 'p', 'ck', 'nk', 'kr')
return {'ok', stored and 0 or 1, fields[1], fields[2], fields[3], fields[4]}

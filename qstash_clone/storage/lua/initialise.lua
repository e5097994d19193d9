--[[
initialise.lua: make an empty partition ready for use, or read what an existing one is.

An existing partition is left as it is, but for a missing consumer group, which is created again, and for its version:
one that the caller can read becomes that of the caller, and processes of older releases refuse the partition from then on.

KEYS
  1  meta   hash    description of the partition
  2  ready  stream  work stream
ARGV
  1  version      int     storage version of the caller
  2  group        string  consumer group
  3  current_key  string  signing keys to seed an empty store with
  4  next_key     string
  5  oldest       int     storage version from which on the caller reads a partition as it is
RETURNS
  {"ok", seeded 0|1, current_key, next_key, revision}
  {"version", stored version}
COST  O(1)
]]
local meta, ready = KEYS[1], KEYS[2]
local version, group, current_key, next_key, oldest = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local stored = redis.call('HGET', meta, 'v')
if stored and (tonumber(stored) < oldest or tonumber(stored) > tonumber(version)) then
  return {'version', stored}
end
local has_group = redis.call('EXISTS', ready) == 1 and #redis.call('XINFO', 'GROUPS', ready) > 0
if not stored then
  redis.call('HSET', meta, 'v', version, 'cap', 0, 'ck', current_key, 'nk', next_key, 'kr', 1)
elseif stored ~= version then
  redis.call('HSET', meta, 'v', version)
end
if not has_group then
  redis.call('XGROUP', 'CREATE', ready, group, '0', 'MKSTREAM')
end
local fields = redis.call('HMGET', meta, 'ck', 'nk', 'kr')
return {'ok', stored and 0 or 1, fields[1], fields[2], fields[3]}

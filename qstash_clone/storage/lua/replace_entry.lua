--[[
replace_entry.lua: replace an entry of a hash beside the partitions if it is still the one that its change was made from.

Entries are compared as they are encoded, so a repeated call finds its own work and says so.

KEYS
  1  entries  hash  URL groups, topics, or subjects: name -> encoding
ARGV
  1  name       string
  2  expected   bytes   the encoding that was read; empty if there was no such entry
  3  wanted     bytes   the encoding to store; empty deletes the entry
  4  when_full  int     1: an entry that is there is replaced at Redis's memory limit too; it is always deleted
RETURNS
  {"ok"}        what is wanted is stored, by this call or by an earlier try of it
  {"changed"}   somebody else changed the entry meanwhile; this call changed nothing
COST  O(1)
]]
local entries = KEYS[1]
local name, expected, wanted, when_full = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local stored = redis.call('HGET', entries, name) or ''
if stored == wanted then
  return {'ok'}
end
if stored ~= expected then
  return {'changed'}
end
if when_full == '1' and stored ~= '' then
  -- A write that Redis allows when it is full, and that changes nothing; after it the other is allowed too.
  redis.call('PERSIST', entries)
end
if wanted == '' then
  redis.call('HDEL', entries, name)
else
  redis.call('HSET', entries, name, wanted)
end
return {'ok'}

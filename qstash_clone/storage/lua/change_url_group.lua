--[[
change_url_group.lua: replace a URL group if it is still the one that its change was made from.

It belongs to no partition. Groups are compared as they are encoded, so a repeated call finds its own work and says so.

KEYS
  1  groups  hash  name of each URL group -> its encoding
ARGV
  1  name      string
  2  expected  bytes   the encoding that was read; empty if there was no such group
  3  wanted    bytes   the encoding to store; empty deletes the group
RETURNS
  {"ok"}        what is wanted is stored, by this call or by an earlier try of it
  {"changed"}   somebody else changed the group meanwhile; this call changed nothing
COST  O(1)
]]
local groups = KEYS[1]
local name, expected, wanted = ARGV[1], ARGV[2], ARGV[3]

local stored = redis.call('HGET', groups, name) or ''
if stored == wanted then
  return {'ok'}
end
if stored ~= expected then
  return {'changed'}
end
if wanted == '' then
  redis.call('HDEL', groups, name)
else
  redis.call('HSET', groups, name, wanted)
end
return {'ok'}

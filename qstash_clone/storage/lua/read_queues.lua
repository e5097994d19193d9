--[[
read_queues.lua: queues by name.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version  int
  2+ names    string
DERIVES  limits of each queue
RETURNS
  {"ok", {} or {parallelism, is paused 0|1, created ms, updated ms, members that are not final}, ...}   one list per
                                                                            name; empty if there is no such queue
  {"no_store"} | {"version", stored version}
COST  O(number of names)
]]
--@include partition
--@include limits
--@include describe
local meta = KEYS[1]
local version, first = ARGV[1], 2

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local reply = {'ok'}
for at = first, #ARGV do
  reply[#reply + 1] = describe_queue(partition, 'q:' .. ARGV[at]) or {}
end
return reply

--[[
read_flow_control.lua: flow-control keys: their limits, and what they hold at the moment.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version  int
  2+ keys     string
DERIVES  limits, waiting list and set in flight of each key
RETURNS
  {"ok", {} or {waiting, parallelism, in flight, rate, counted in the window, period in ms, start of the window in ms,
         is paused 0|1, is parallelism pinned 0|1, is rate pinned 0|1}, ...}   one list per key; empty if there is no
                                                                               such key
  {"no_store"} | {"version", stored version}
COST  O(number of keys)
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
  reply[#reply + 1] = describe_flow(partition, 'f:' .. ARGV[at]) or {}
end
return reply

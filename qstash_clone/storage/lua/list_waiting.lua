--[[
list_waiting.lua: the ids that wait in lists of lanes, in their order.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version  int
  2  limit    int    at most this many ids, or the lanes up to where they are reached
  3  id       bytes  the first lane is read from behind this id, or from its head if it is there no more; "" for none
  4  index    int    where that id was; it can only have moved towards the head
  5+ lists    string  "l:" or "r:" and the lane
DERIVES  the lists
RETURNS
  {"ok", index of the first id of the first lane, {id, ...}, ...}   one list per list that was read
  {"no_store"} | {"version", stored version}
COST  O(limit + lanes), and O(index) if the line has moved since
]]
--@include partition
local meta = KEYS[1]
local version, limit, id, index, first = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), 5

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end

local function place_behind(list)
  if id == '' then
    return 0
  end
  local at = index
  if redis.call('LINDEX', list, index) ~= id then
    -- Lines are first in, first out: what is not there any more took all before it along.
    at = redis.call('LPOS', list, id, 'MAXLEN', index + 1)
  end
  return at and at + 1 or 0
end

local reply, start = {'ok', 0}, nil
for at = first, #ARGV do
  if limit < 1 then
    break
  end
  local list = partition.prefix .. ARGV[at]
  start = at == first and place_behind(list) or 0
  if at == first then
    reply[2] = start
  end
  local ids = redis.call('LRANGE', list, start, start + limit - 1)
  reply[#reply + 1] = ids
  limit = limit - #ids
end
return reply

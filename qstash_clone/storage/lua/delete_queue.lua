--[[
delete_queue.lua: forget a queue; from now on it is unknown, and none of its members begins another attempt.

What it leaves is cancelled by cancel_members, and what that does not find when its turn comes: `dt` says which members
are meant, all that were created up to then. Members that join afterwards belong to a new queue of the same name and are
created later than that, if need be by a millisecond. The last of the old members takes the limits along.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version  int
  2  name     string
DERIVES  limits and members of the queue, record and lanes of what is admitted
RETURNS
  {"deleted", deleted ms, members that are not final}
  {"again", deleted ms, members that are not final}   it was deleted before, and members are left
  {"unknown"}
  {"no_store"} | {"version", stored version}
COST  O(1)
]]
--@include partition
--@include record
--@include routes
--@include limits
--@include lanes
local meta = KEYS[1]
local version, name = ARGV[1], ARGV[2]

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local lane = 'q:' .. name
local key = limits_key(partition, lane)
look_at_route(partition, {queue = lane, line = lane, place = lane})
redis.call('ZCARD', partition.queues)
local fields = redis.call('HMGET', key, 'ct', 'n', 'del', 'dt', 'mc')
local members, deleted_ms = tonumber(fields[2]) or 0, tonumber(fields[4])
if not fields[1] then
  return {'unknown'}
end
if fields[3] == '1' then
  return {'again', deleted_ms, members}
end

redis.call('ZREM', partition.queues, name)
-- Not before any member, also where several queues of this name had to share a millisecond, or the clock was set back.
deleted_ms = math.max(partition.now_ms, deleted_ms or 0, tonumber(fields[5]) or 0)
if members <= 0 then
  redis.call('DEL', key)
else
  redis.call('HDEL', key, 'x')
  redis.call('HSET', key, 'del', 1, 'dt', deleted_ms)
end
-- Whatever held the line up: what stands there is to be dropped.
reopen_lane(partition, lane)
if members <= 0 then
  -- Nothing but ids of cancelled members, and nobody comes to cancel more.
  admit_reopened(partition)
end
return {'deleted', deleted_ms, members}

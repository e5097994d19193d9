--[[
put_queue.lua: create a queue or change it; what already waits there goes on under the new values at once.

A deleted queue that still has members comes into being anew; the members from before stay deleted.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version      int
  2  name         string
  3  parallelism  int  "" leaves it as it is, or gives a new queue the default
  4  is_paused    0|1  "" leaves it as it is; a new queue is not paused
  5  most         int  no new queue where this partition has so many
DERIVES  limits and members of the queue, record and lanes of what is admitted
RETURNS
  {"ok"}
  {"absent"}   there is no such queue, and nothing was changed
  {"no_store"} | {"version", stored version}
COST  O(1)
]]
--@include partition
--@include record
--@include routes
--@include limits
--@include lanes
--@include members
local meta = KEYS[1]
local version, name, parallelism, is_paused, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local lane = 'q:' .. name
local key = limits_key(partition, lane)
look_at_route(partition, {queue = lane, line = lane, place = lane})
local fields = redis.call('HMGET', key, 'p', 'x', 'ct', 'del')
local exists = fields[3] and fields[4] ~= '1'
if not exists and redis.call('ZCARD', partition.queues) >= most then
  return {'absent'}
end

local now_ms = partition.now_ms
if not exists then
  redis.call('HSET', key, 'p', parallelism ~= '' and parallelism or DEFAULT_PARALLELISM,
    'x', is_paused == '1' and 1 or 0, 'ct', now_ms, 'ut', now_ms)
  redis.call('HDEL', key, 'del')
  redis.call('ZADD', partition.queues, now_ms, name)
else
  local changes = {}
  if parallelism ~= '' and parallelism ~= fields[1] then
    changes[#changes + 1] = 'p'
    changes[#changes + 1] = parallelism
  end
  if is_paused ~= '' and is_paused ~= (fields[2] or '0') then
    changes[#changes + 1] = 'x'
    changes[#changes + 1] = is_paused
  end
  if #changes == 0 then
    return {'ok'}
  end
  -- A write that Redis allows when it is full; after it the others are allowed too.
  redis.call('HDEL', key, '')
  redis.call('HSET', key, 'ut', now_ms, unpack(changes))
end
reopen_lane(partition, lane)
admit_reopened(partition)
return {'ok'}

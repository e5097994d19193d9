--[[
heartbeat.lua: note a live worker, forget silent ones, add up the capacity, and admit what has room.

KEYS
  1  meta      hash        description of the partition
  2  ready     stream      work stream
  3  ring      list        lanes with waiting messages
  4  parked    set         lanes that hold all they may
  5  workers   sorted set  live worker -> time of its last heartbeat
  6  capacity  hash        live worker -> deliveries it can hold at once
ARGV
  1  version    int
  2  group      string
  3  consumer   string  the worker reporting
  4  holds      int     deliveries it can hold at once; -1 takes it out
  5  silent_ms  int     a worker that was not heard of for this long is gone
  6  limit      int     at most this many turns
  7  most       int     deliveries at once that the partition may have, whatever the workers can hold; 0 is no limit
DERIVES  record and lanes of what is admitted
RETURNS
  {"ok", number of live workers, capacity}
  {"no_store"} | {"version", stored version}
COST  O(workers + limit)
]]
--@include partition
--@include record
--@include routes
--@include limits
--@include lanes
local meta, ready, ring, parked, workers, capacity = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local version, group, consumer = ARGV[1], ARGV[2], ARGV[3]
local holds, silent_ms, limit, most = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
redis.call('EXISTS', ring, parked, workers, capacity)
write_when_full(ready, group)

-- Workers are live or not by real time, whatever a test does to the clock of messages.
local function forget(first_ms, last_ms)
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', workers, first_ms, last_ms, 'LIMIT', 0, 100)) do
    redis.call('ZREM', workers, gone)
    redis.call('HDEL', capacity, gone)
  end
end
forget('-inf', partition.real_ms - silent_ms)
-- Reported before Redis's clock was set back; whoever is still there does so again.
forget(partition.real_ms + silent_ms, '+inf')
if holds >= 0 then
  redis.call('ZADD', workers, partition.real_ms, consumer)
  redis.call('HSET', capacity, consumer, holds)
else
  redis.call('ZREM', workers, consumer)
  redis.call('HDEL', capacity, consumer)
  -- Deleting a consumer throws its pending entries away: only one that has none may go.
  if redis.call('XPENDING', ready, group, '-', '+', 1, consumer)[1] == nil then
    redis.call('XGROUP', 'DELCONSUMER', ready, group, consumer)
  end
end

local total = 0
for _, share in ipairs(redis.call('HVALS', capacity)) do
  total = total + tonumber(share)
end
if most > 0 then
  total = math.min(total, most)
end
if total ~= partition.capacity then
  redis.call('HSET', meta, 'cap', total)
  partition.capacity = total
end

-- Without room nobody gets a turn, and lanes that are held up would pile up in the ring.
if free_places(partition) > 0 then
  -- Room may have grown for lanes that were parked when it was scarce.
  for _, lane in ipairs(redis.call('SRANDMEMBER', parked, 64)) do
    unpark(partition, lane)
  end
  -- Blocked lanes are reopened by what held them up. Should a call have broken off before that, this finds them.
  for _, lane in ipairs(redis.call('SRANDMEMBER', partition.blocked, 8)) do
    unblock(partition, lane)
  end
  admit_on(partition, limit)
end
return {'ok', redis.call('ZCARD', workers), total}

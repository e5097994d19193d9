--[[
change_flow_control.lua: pause, resume, pin, unpin or reset a flow-control key; what waits for it goes on at once.

A pause and a pin make a key that there was not. The others do nothing to one.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version      int
  2  key          string
  3  verb         string  pause, resume, pin, unpin or reset
  4  parallelism  int  to pin, 0 for none; 0|1 whether to unpin it, or to forget what is in flight
  5  rate         int  to pin, 0 for none; 0|1 whether to unpin it, or to begin a new window
  6  period_ms    int  of a pinned rate
DERIVES  limits, admitted set and set in flight of the key, record and lanes of what is admitted
RETURNS
  {"ok"}
  {"no_store"} | {"version", stored version}
COST  O(attempts in flight) for a reset, else O(1)
]]
--@include partition
--@include record
--@include routes
--@include limits
--@include lanes
local meta = KEYS[1]
local version, name, verb = ARGV[1], ARGV[2], ARGV[3]
local parallelism, rate, period_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local flow = 'f:' .. name
local key = limits_key(partition, flow)
local places, in_flight = partition.prefix .. 'a:' .. flow, partition.prefix .. 'i:' .. flow
look_at_route(partition, {flow = flow, line = flow, place = flow})
redis.call('ZCARD', partition.flows)
if redis.call('EXISTS', key) == 0 and verb ~= 'pause' and verb ~= 'pin' then
  return {'ok'}
end

local function pause()
  redis.call('HSET', key, 'x', 1)
end

local function resume()
  redis.call('HDEL', key, 'x')
end

local function pin()
  if parallelism > 0 then
    redis.call('HSET', key, 'p', parallelism, 'pp', 1)
  end
  if rate > 0 then
    redis.call('HSET', key, 'r', rate, 'w', period_ms, 'pr', 1)
    redis.call('HDEL', key, 'ws', 'wc')
  end
end

local function unpin()
  if parallelism > 0 then
    redis.call('HDEL', key, 'pp')
  end
  if rate > 0 then
    redis.call('HDEL', key, 'pr')
  end
end

local function reset()
  if rate > 0 then
    redis.call('HSET', key, 'ws', partition.now_ms, 'wc', 0)
  end
  if parallelism > 0 then
    -- Their attempts go on. At their end there is no place any more that they could give back.
    redis.call('SDIFFSTORE', places, places, in_flight)
    redis.call('DEL', in_flight)
  end
end

-- A write that Redis allows when it is full; after it the others are allowed too.
redis.call('HDEL', key, '')
local CHANGES = {pause = pause, resume = resume, pin = pin, unpin = unpin, reset = reset}
CHANGES[verb]()
-- However long nobody has used it: it is not forgotten right after a change.
redis.call('ZADD', partition.flows, partition.now_ms, name)
redis.call('HSET', key, 'u', partition.now_ms)
reopen_lane(partition, flow)
admit_reopened(partition)
return {'ok'}

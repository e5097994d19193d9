--[[
promote.lua: move due messages from the timers to their lanes.

One that cannot be moved is looked at again a second later: it holds up neither the others nor the caller.

KEYS
  1  meta    hash        description of the partition
  2  ready   stream      work stream
  3  timers  sorted set  due times
  4  ring    list        lanes with waiting messages
ARGV
  1  version  int
  2  limit    int  at most this many
DERIVES  record, waiting list and admitted set of each message
RETURNS
  {"ok", now ms, promoted, next due ms or -1, is stopped 0|1, real ms, fault, ...}
  {"no_store"} | {"version", stored version}
COST  O(limit log timers)
]]
--@include partition
--@include record
--@include lanes
local meta, ready, timers, ring = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local version, limit = ARGV[1], tonumber(ARGV[2])

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end

redis.call('EXISTS', ready, ring)
-- Redis lets a script go on writing at its memory limit if its first write is one that frees. This one changes nothing.
redis.call('ZREM', timers, '')

local function promote(id)
  local key = message_key(partition.prefix, id)
  local head = read_head(redis.call('GETRANGE', key, 0, HEAD_AND_LANE_BYTES - 1))
  if not head or head.state ~= DELAYED then
    redis.call('ZREM', timers, id)
    return
  end
  local look = look_at_lane(partition, ready, ring, head.lane)
  enqueue(partition, ready, ring, head.lane, look, id)
  head.state = QUEUED
  write_head(key, head)
  redis.call('ZREM', timers, id)
end

local AGAIN_MS = 1000
local promoted, faults = 0, {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', timers, '-inf', partition.now_ms, 'LIMIT', 0, limit)) do
  local done, problem = pcall(promote, id)
  if done then
    promoted = promoted + 1
  else
    redis.call('ZADD', timers, partition.now_ms + AGAIN_MS, id)
    faults[#faults + 1] = error_text(problem)
  end
end
local next = redis.call('ZRANGE', timers, 0, 0, 'WITHSCORES')
return {'ok', partition.now_ms, promoted, tonumber(next[2] or -1), partition.is_frozen and 1 or 0, partition.real_ms,
  unpack(faults)}

--[[
promote.lua: move due messages from the timers to their lanes, reopen those whose rate window is over, and give turns.

One that cannot be moved is looked at again a second later: it holds up neither the others nor the caller.

KEYS
  1  meta     hash        description of the partition
  2  ready    stream      work stream
  3  timers   sorted set  due times
  4  ring     list        lanes with waiting messages
  5  windows  sorted set  ends of the rate windows that lanes wait for
ARGV
  1  version  int
  2  limit    int  at most this many messages, lanes and turns
DERIVES  record and lanes of each message
RETURNS
  {"ok", now ms, promoted, next due ms or -1, is stopped 0|1, real ms, fault, ...}
     next due: now, if there are places for more turns than were given
     is stopped: the clock of messages stands still, nothing becomes due by waiting
  {"no_store"} | {"version", stored version}
COST  O(limit log timers)
]]
--@include partition
--@include record
--@include routes
--@include limits
--@include lanes
local meta, ready, timers, ring, windows = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local version, limit = ARGV[1], tonumber(ARGV[2])

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end

redis.call('EXISTS', ready, windows)
local has_turns = redis.call('LLEN', ring) > 0
partition.looked_at[ring] = true
-- Redis lets a script go on writing at its memory limit if its first write is one that frees. This one changes nothing.
redis.call('ZREM', timers, '')

local function promote(id)
  local key = message_key(partition.prefix, id)
  local head = read_head(redis.call('GETRANGE', key, 0, HEAD_AND_LANE_BYTES - 1))
  if not head or head.state ~= DELAYED then
    redis.call('ZREM', timers, id)
    return
  end
  local route = parse_route(head.lane)
  local look = look_at_route(partition, route)
  join(partition, route, look, id)
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

local function earliest(key)
  return tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or math.huge)
end

local next_window_ms = earliest(windows)
if next_window_ms <= partition.now_ms then
  for _, lane in ipairs(redis.call('ZRANGEBYSCORE', windows, '-inf', partition.now_ms, 'LIMIT', 0, limit)) do
    reopen_lane(partition, lane)
    redis.call('ZREM', windows, lane)
  end
  has_turns = true
  next_window_ms = earliest(windows)
end
local has_more = has_turns and admit(partition, limit)
local next_ms = has_more and partition.now_ms or math.min(earliest(timers), next_window_ms)
return {'ok', partition.now_ms, promoted, next_ms < math.huge and next_ms or -1, partition.is_frozen and 1 or 0,
  partition.real_ms, unpack(faults)}

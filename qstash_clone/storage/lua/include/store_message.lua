--[[
store_message.lua: a new message: its record, and its place in a lane or in the timers.
]]
-- What store_message will write, read: a fault surfaces while nothing was written yet.
local function look_at_message(partition, ready, timers, ring, id, lane)
  redis.call('STRLEN', message_key(partition.prefix, id))
  redis.call('ZCARD', timers)
  look_at_lane(partition, ready, ring, lane)
end

-- Stores nothing and returns false if the id exists: an earlier try of the same call stored it.
-- lane_at: offset of the lane's host in the encoded message, or 0, see record.lua.
local function store_message(partition, ready, timers, ring, log, id, delay_ms, not_before_ms, lane, lane_at, encoded,
  body)
  local key = message_key(partition.prefix, id)
  if redis.call('STRLEN', key) > 0 then
    return false
  end
  local look = look_at_lane(partition, ready, ring, lane)
  local now_ms = partition.now_ms
  local due_ms = now_ms + delay_ms
  if not_before_ms >= 0 then
    due_ms = math.max(not_before_ms, now_ms)
  end
  local is_due = due_ms <= now_ms
  local state = is_due and QUEUED or DELAYED
  if lane_at == 0 then
    redis.call('SET', key,
      new_head(state, due_ms, now_ms, due_ms, 0, #lane, #encoded, #body) .. lane .. encoded .. body)
  else
    redis.call('SET', key,
      new_head(state, due_ms, now_ms, due_ms, lane_at, #lane - 2, #encoded, #body) .. encoded .. body)
  end
  if is_due then
    enqueue(partition, ready, ring, lane, look, id)
  else
    redis.call('ZADD', timers, due_ms, id)
  end
  log_event(log, 'C', id)
  return true
end

local function earliest_timer(timers)
  return redis.call('ZRANGE', timers, 0, 0)[1]
end

-- Workers sleep until the earliest timer they know of: a new earliest one has to wake them.
local function ring_for_timers(partition, ready, timers, earliest)
  if partition.capacity > 0 and earliest_timer(timers) ~= earliest then
    redis.call('XADD', ready, '*', 'b', '1')
  end
end

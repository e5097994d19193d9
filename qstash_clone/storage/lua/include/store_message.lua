--[[
store_message.lua: a new message: its record, and its place in a lane or in the timers.

A message is a table with
  id, body, encoded         bytes
  delay_ms, not_before_ms   not before a unix time, or -1: after the delay
  lane                      its route, see routes.lua
  lane_at                   offset of the lane's host in the encoded message, or 0, see record.lua
  limits                    those it brings for its flow-control key, or "", see members.lua
]]
local function earliest_timer(partition)
  return redis.call('ZRANGE', partition.timers, 0, 0)[1]
end

-- What store_message will write, read: a fault surfaces while nothing was written yet. If anything is written between
-- the two, `message.look` has to be cleared: it is of this moment.
local function look_at_message(partition, message)
  message.is_stored = redis.call('STRLEN', message_key(partition.prefix, message.id)) > 0
  if (message.delay_ms > 0 or message.not_before_ms >= 0) and not partition.earliest then
    partition.earliest = {id = earliest_timer(partition)}
  end
  message.route = parse_route(message.lane)
  message.look = look_at_route(partition, message.route)
  look_at_members(partition, message.route)
end

-- Stores nothing and returns false if the id exists: an earlier try of the same call stored it.
-- `look_at_message` comes first; `end_of_storing` has to follow in the same script.
local function store_message(partition, log, message)
  local id, route, lane = message.id, message.route, message.lane
  local key = message_key(partition.prefix, id)
  if message.is_stored then
    return false
  end
  local now_ms = partition.now_ms
  local created_ms = now_ms
  if route.queue then
    created_ms = count_queue_member(partition, route.queue)
  end
  if route.flow then
    count_flow_member(partition, route.flow, message.limits)
  end
  local due_ms = now_ms + message.delay_ms
  if message.not_before_ms >= 0 then
    due_ms = math.max(message.not_before_ms, now_ms)
  end
  local is_due = due_ms <= now_ms
  local state = is_due and QUEUED or DELAYED
  local encoded, body = message.encoded, message.body
  if message.lane_at == 0 then
    redis.call('SET', key,
      new_head(state, due_ms, created_ms, due_ms, 0, #lane, #encoded, #body) .. lane .. encoded .. body)
  else
    redis.call('SET', key,
      new_head(state, due_ms, created_ms, due_ms, message.lane_at, #lane - 2, #encoded, #body) .. encoded .. body)
  end
  if is_due then
    join(partition, route, message.look or look_at_route(partition, route), id)
  else
    redis.call('ZADD', partition.timers, due_ms, id)
  end
  log_event(partition, log, 'C', id)
  return true
end

-- Once, behind all messages.
local function end_of_storing(partition)
  admit_reopened(partition)
  -- Workers sleep until the earliest timer they know of: a new earliest one has to wake them.
  if partition.earliest and earliest_timer(partition) ~= partition.earliest.id then
    ring_doorbell(partition)
  end
end

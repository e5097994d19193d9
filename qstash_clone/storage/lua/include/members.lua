--[[
members.lua: messages of queues and flow-control keys: the limits they bring, the slots they hold, how many there are.

A slot of a queue is held from a member's first attempt through all its retries, until it is final and so is every
callback that it caused.
]]
local DEFAULT_PARALLELISM = 1
-- The last use of a key is noted no more often than this.
local USE_GRAIN_MS = 60000

-- limits: of the message, parallelism, rate and period in ms, 0 for none; "" for a message that brings no limits.
local function count_flow_member(partition, flow, limits)
  local key, now_ms = limits_key(partition, flow), partition.now_ms
  redis.call('HINCRBY', key, 'n', 1)
  local fields = redis.call('HMGET', key, 'p', 'r', 'w', 'pp', 'pr', 'u')
  local changes = {}
  if #limits > 0 then
    local parallelism, rate, period_ms = struct.unpack('>I4I4I4', limits)
    if fields[4] ~= '1' and tonumber(fields[1]) ~= parallelism then
      changes[#changes + 1] = 'p'
      changes[#changes + 1] = parallelism
    end
    if fields[5] ~= '1' and (tonumber(fields[2]) ~= rate or tonumber(fields[3]) ~= period_ms) then
      for _, change in ipairs({'r', rate, 'w', period_ms}) do
        changes[#changes + 1] = change
      end
    end
  end
  local is_changed = #changes > 0
  if math.abs(now_ms - (tonumber(fields[6]) or 0)) >= USE_GRAIN_MS then
    redis.call('ZADD', partition.flows, now_ms, string.sub(flow, 3))
    changes[#changes + 1] = 'u'
    changes[#changes + 1] = now_ms
  end
  if #changes > 0 then
    redis.call('HSET', key, unpack(changes))
  end
  if is_changed then
    reopen_lane(partition, flow)
  end
end

-- A queue comes into being with its first member. Returns the earliest time at which the member may have been created.
local function count_queue_member(partition, queue)
  local key, now_ms = limits_key(partition, queue), partition.now_ms
  local fields = redis.call('HMGET', key, 'ct', 'del', 'dt', 'n', 'mc')
  local created_ms = math.max(now_ms, (tonumber(fields[3]) or -1) + 1)
  redis.call('HSET', key, 'n', (tonumber(fields[4]) or 0) + 1, 'mc', math.max(created_ms, tonumber(fields[5]) or 0))
  if not fields[1] or fields[2] == '1' then
    redis.call('HSET', key, 'p', DEFAULT_PARALLELISM, 'ct', now_ms, 'ut', now_ms)
    redis.call('HDEL', key, 'del', 'x')
    redis.call('ZADD', partition.queues, now_ms, string.sub(queue, 3))
  end
  return created_ms
end

local function look_at_members(partition, route)
  if route.flow then
    look_at(partition, 'HLEN', limits_key(partition, route.flow))
    look_at(partition, 'ZCARD', partition.flows)
  end
  if route.queue then
    look_at(partition, 'HLEN', limits_key(partition, route.queue))
    look_at(partition, 'ZCARD', partition.queues)
  end
end

local function free_slot(partition, queue, id)
  redis.call('SREM', partition.prefix .. 's:' .. queue, id)
  if redis.call('SISMEMBER', partition.blocked, queue) == 1 then
    local limits = read_queue(partition, queue)
    if not limits.is_paused and redis.call('SCARD', partition.prefix .. 's:' .. queue) < limits.parallelism then
      unblock(partition, queue)
    end
  end
end

-- The callbacks of a queue's member that are not final yet.
local function callbacks_key(partition, id)
  return partition.prefix .. 'k' .. id
end

-- A message is final, and its record says so already.
local function end_member(partition, route, id)
  if route.flow then
    redis.call('HINCRBY', limits_key(partition, route.flow), 'n', -1)
  end
  local queue = route.queue
  if queue then
    local key = limits_key(partition, queue)
    local members = redis.call('HINCRBY', key, 'n', -1)
    if redis.call('EXISTS', callbacks_key(partition, id)) == 0 then
      free_slot(partition, queue, id)
    end
    if members <= 0 and redis.call('HGET', key, 'del') == '1' then
      redis.call('DEL', key)
    end
  end
  local member = route.slot_member
  if member then
    redis.call('SREM', callbacks_key(partition, member), id)
    if redis.call('EXISTS', callbacks_key(partition, member)) == 0 then
      local state = string.byte(redis.call('GETRANGE', message_key(partition.prefix, member), 1, 1))
      if state ~= DELAYED and state ~= QUEUED and state ~= ACTIVE then
        free_slot(partition, route.slot_queue, member)
      end
    end
  end
end

-- A message is cancelled while it may be in the waiting list of its key, where its id stays until its turn.
local function note_cancelled_in_line(partition, route, id)
  if not route.flow or redis.call('SISMEMBER', partition.prefix .. 'a:' .. route.flow, id) == 1 then
    return
  end
  if route.queue then
    if redis.call('SISMEMBER', partition.prefix .. 's:' .. route.queue, id) == 0
      or redis.call('LPOS', partition.prefix .. 'r:' .. route.queue, id) then
      return
    end
  end
  redis.call('HINCRBY', limits_key(partition, route.flow), 'z', 1)
end

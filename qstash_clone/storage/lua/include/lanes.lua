--[[
lanes.lua: waiting lines and who may go next; see docs/explanation/lanes.md.

A message that is due waits in the list of its lane until it is admitted to the ready stream. A lane with waiting
messages is in exactly one of three places: the ring (it gets turns), the parked set (it holds as many places as
capacity allows) or the blocked set (its own limits or a pause hold it). A lane may hold as many places as are free:
alone it gets half of the capacity, two busy lanes get a third each, and there is always a place for one that holds
none. So a destination that hangs never fills the workers.
Admitted messages, holders of slots and what is in flight are members of sets, not counts: repeating a step cannot leak
a place.

A member of a queue takes a slot of the queue first, and then waits for its flow-control key, if it has one. Slot
holders whose attempt is due and may not start yet wait in the list of the queue's returning members.

Every function reads all keys that it will write before it writes the first. Should a script break off half-way all the
same (a slot on its way to another master), a message may be left in two places, of which one is dropped when its turn
comes, but never in none: it is put into the next place before it is taken out of the last.
]]
local function free_places(partition)
  return partition.capacity - redis.call('XLEN', partition.ready)
end

local function admit_one(partition, place, id)
  redis.call('XADD', partition.ready, '*', 'i', id)
  redis.call('SADD', partition.prefix .. 'a:' .. place, id)
  partition.free = partition.free - 1
end

-- id: of the message if it may be over after this.
local function look_at_limits(partition, route, id)
  local prefix = partition.prefix
  if not (route.flow or route.queue or route.slot_queue) then
    return
  end
  look_at(partition, 'SCARD', partition.parked)
  look_at(partition, 'SCARD', partition.blocked)
  look_at(partition, 'ZCARD', partition.windows)
  if route.flow then
    look_at(partition, 'HLEN', limits_key(partition, route.flow))
    look_at(partition, 'LLEN', prefix .. 'l:' .. route.flow)
    look_at(partition, 'SCARD', prefix .. 'i:' .. route.flow)
  end
  local slot_queue = route.queue or route.slot_queue
  if slot_queue then
    look_at(partition, 'HLEN', limits_key(partition, slot_queue))
    look_at(partition, 'LLEN', prefix .. 'r:' .. slot_queue)
    look_at(partition, 'SCARD', prefix .. 's:' .. slot_queue)
  end
  if route.queue and id then
    look_at(partition, 'SCARD', prefix .. 'k' .. id)
  end
  if route.slot_member then
    look_at(partition, 'SCARD', prefix .. 'k' .. route.slot_member)
    look_at(partition, 'STRLEN', message_key(prefix, route.slot_member))
  end
end

-- What `join` will need to know; reads only, so that a fault surfaces before anything was written.
local function look_at_route(partition, route)
  partition.free = partition.free or free_places(partition)
  look_at(partition, 'LLEN', partition.ring)
  look_at_limits(partition, route)
  local line, holders = partition.prefix .. 'l:' .. route.line, partition.prefix .. 'a:' .. route.place
  local look = {waiting = redis.call('LLEN', line), admitted = redis.call('SCARD', holders)}
  partition.looked_at[line], partition.looked_at[holders] = true, true
  return look
end

-- What `release_place` and `end_member` will need to know; reads only.
local function look_at_place(partition, route, id)
  look_at(partition, 'LLEN', partition.ring)
  look_at(partition, 'SCARD', partition.parked)
  look_at(partition, 'SCARD', partition.prefix .. 'a:' .. route.place)
  look_at_limits(partition, route, id)
end

-- The lane gets no turns until something reopens it: a release, a change of its limits, or this time.
local function block_lane(partition, lane, reopens_ms)
  if not reopens_ms then
    redis.call('SADD', partition.blocked, lane)
    return
  end
  local earliest = redis.call('ZRANGE', partition.windows, 0, 0, 'WITHSCORES')[2]
  redis.call('SADD', partition.blocked, lane)
  redis.call('ZADD', partition.windows, reopens_ms, lane)
  -- Workers sleep until the earliest time they know of.
  if not earliest or reopens_ms < tonumber(earliest) then
    ring_doorbell(partition)
  end
end

-- What held the lane up is gone. `admit` has to follow in the same script, or `admit_reopened`.
local function unblock(partition, lane)
  redis.call('RPUSH', partition.ring, lane)
  redis.call('SREM', partition.blocked, lane)
  partition.has_reopened = true
end

local function unpark(partition, lane)
  redis.call('RPUSH', partition.ring, lane)
  redis.call('SREM', partition.parked, lane)
end

-- The limits of a lane have changed.
local function reopen_lane(partition, lane)
  if redis.call('SISMEMBER', partition.blocked, lane) == 1 then
    unblock(partition, lane)
  elseif redis.call('SISMEMBER', partition.parked, lane) == 1 then
    unpark(partition, lane)
    partition.has_reopened = true
  end
end

-- A message for which its queue has a slot, or that is in no queue, and for which there is capacity: goes to ready, or
-- waits for its flow-control key.
local function enter(partition, route, id)
  local flow = route.flow
  if not flow then
    admit_one(partition, route.place, id)
    return
  end
  local list = partition.prefix .. 'l:' .. flow
  if redis.call('LLEN', list) == 0 then
    local limits = read_flow(partition, flow)
    local room, admitted = flow_room(partition, flow, limits)
    if room > 0 and admitted < partition.free then
      admit_one(partition, flow, id)
      return
    end
    if room > 0 then
      redis.call('RPUSH', partition.ring, flow)
    else
      block_lane(partition, flow, limits.window_ends_ms)
    end
  end
  redis.call('RPUSH', list, id)
end

local function join_queue(partition, route, look, id)
  local queue = route.queue
  local slots = partition.prefix .. 's:' .. queue
  local returning = partition.prefix .. 'r:' .. queue
  local limits = read_queue(partition, queue)
  local returned = redis.call('LLEN', returning)
  local is_holder = redis.call('SISMEMBER', slots, id) == 1
  local is_full = not is_holder and redis.call('SCARD', slots) >= limits.parallelism
  local is_behind = returned > 0 or (look.waiting > 0 and not is_holder)
  local has_capacity = route.flow or look.admitted < partition.free
  if not (limits.is_paused or is_full or is_behind) and has_capacity then
    redis.call('SADD', slots, id)
    enter(partition, route, id)
    return
  end
  if look.waiting + returned == 0 then
    if limits.is_paused or is_full then
      block_lane(partition, queue)
    else
      redis.call('RPUSH', partition.ring, queue)
    end
  elseif is_holder and not limits.is_paused then
    -- Full slots may have blocked the line, but not one who has a slot.
    reopen_lane(partition, queue)
  end
  redis.call('RPUSH', is_holder and returning or partition.prefix .. 'l:' .. queue, id)
end

-- A due message joins its line, or goes straight to ready where nobody waits and there is room.
local function join(partition, route, look, id)
  if route.queue then
    join_queue(partition, route, look, id)
  elseif route.flow then
    enter(partition, route, id)
  elseif look.waiting == 0 and look.admitted < partition.free then
    admit_one(partition, route.place, id)
  else
    if look.waiting == 0 then
      redis.call('RPUSH', partition.ring, route.line)
    end
    redis.call('RPUSH', partition.prefix .. 'l:' .. route.line, id)
  end
end

-- The place of a message that left ready or flight is free again; a lane that waited for it gets its turns back.
local function release_place(partition, route, id)
  local place = route.place
  redis.call('SREM', partition.prefix .. 'a:' .. place, id)
  if route.flow then
    redis.call('SREM', partition.prefix .. 'i:' .. place, id)
    if redis.call('SISMEMBER', partition.blocked, place) == 1 then
      if flow_room(partition, place, read_flow(partition, place)) > 0 then
        unblock(partition, place)
      end
      return
    end
  end
  if redis.call('SISMEMBER', partition.parked, place) == 1 then
    unpark(partition, place)
  end
end

-- A cancelled message leaves its line only when its turn comes: taking it out of the middle would cost O(waiting).
local function take_turn_of_host(partition, lane)
  local list = partition.prefix .. 'l:' .. lane
  local waiting = redis.call('LLEN', list)
  if waiting == 0 then
    redis.call('LPOP', partition.ring)
    return
  end
  if redis.call('SCARD', partition.prefix .. 'a:' .. lane) >= partition.free then
    redis.call('SADD', partition.parked, lane)
    redis.call('LPOP', partition.ring)
    return
  end
  local id = redis.call('LINDEX', list, 0)
  if string.byte(redis.call('GETRANGE', message_key(partition.prefix, id), 1, 1)) == QUEUED then
    admit_one(partition, lane, id)
  end
  redis.call('LPOP', list)
  if waiting > 1 then
    redis.call('LMOVE', partition.ring, partition.ring, 'LEFT', 'RIGHT')
  else
    redis.call('LPOP', partition.ring)
  end
end

-- Those that claim has put back stand at the head of a list, and the last of them has left it now.
local function forget_put_back(partition, lane, limits, id)
  if limits.last_put_back == id then
    redis.call('HDEL', limits_key(partition, lane), 'b')
  end
end

local function take_turn_of_flow(partition, flow)
  local list = partition.prefix .. 'l:' .. flow
  local waiting = redis.call('LLEN', list)
  if waiting == 0 then
    redis.call('LPOP', partition.ring)
    return
  end
  look_at(partition, 'SCARD', partition.blocked)
  local limits = read_flow(partition, flow)
  local room, admitted = flow_room(partition, flow, limits)
  if room <= 0 then
    block_lane(partition, flow, limits.window_ends_ms)
    redis.call('LPOP', partition.ring)
    return
  end
  if admitted >= partition.free then
    redis.call('SADD', partition.parked, flow)
    redis.call('LPOP', partition.ring)
    return
  end
  local id = redis.call('LINDEX', list, 0)
  if string.byte(redis.call('GETRANGE', message_key(partition.prefix, id), 1, 1)) == QUEUED then
    admit_one(partition, flow, id)
    room = room - 1
  else
    redis.call('HINCRBY', limits_key(partition, flow), 'z', -1)
  end
  redis.call('LPOP', list)
  forget_put_back(partition, flow, limits, id)
  if waiting > 1 and room > 0 then
    redis.call('LMOVE', partition.ring, partition.ring, 'LEFT', 'RIGHT')
    return
  end
  if waiting > 1 then
    block_lane(partition, flow, limits.window_ends_ms)
  end
  redis.call('LPOP', partition.ring)
end

local function take_turn_of_queue(partition, queue)
  local prefix = partition.prefix
  local list, returning, slots = prefix .. 'l:' .. queue, prefix .. 'r:' .. queue, prefix .. 's:' .. queue
  local waiting, returned = redis.call('LLEN', list), redis.call('LLEN', returning)
  if waiting + returned == 0 then
    redis.call('LPOP', partition.ring)
    return
  end
  look_at(partition, 'SCARD', partition.blocked)
  local limits = read_queue(partition, queue)
  local left = returned > 0 and math.huge or limits.parallelism - redis.call('SCARD', slots)
  if limits.is_paused or left <= 0 then
    block_lane(partition, queue)
    redis.call('LPOP', partition.ring)
    return
  end
  local from = returned > 0 and returning or list
  local id = redis.call('LINDEX', from, 0)
  local head = read_head(redis.call('GETRANGE', message_key(prefix, id), 0, HEAD_AND_LANE_BYTES - 1))
  if head and head.state == QUEUED then
    local route = parse_route(head.lane)
    local look = look_at_route(partition, route)
    if not route.flow and look.admitted >= partition.free then
      redis.call('SADD', partition.parked, queue)
      redis.call('LPOP', partition.ring)
      return
    end
    redis.call('SADD', slots, id)
    enter(partition, route, id)
    left = left - 1
  end
  redis.call('LPOP', from)
  forget_put_back(partition, queue, limits, id)
  if waiting + returned > 1 and left > 0 then
    redis.call('LMOVE', partition.ring, partition.ring, 'LEFT', 'RIGHT')
    return
  end
  if waiting + returned > 1 then
    block_lane(partition, queue)
  end
  redis.call('LPOP', partition.ring)
end

local TURNS = {h = take_turn_of_host, f = take_turn_of_flow, q = take_turn_of_queue}

-- Gives turns round-robin, at most `limit` of them. Whether there were places for more: one who is not called again
-- soon has to see to it that somebody is.
local function admit(partition, limit)
  partition.has_reopened = false
  partition.free = free_places(partition)
  look_at(partition, 'SCARD', partition.parked)
  while partition.free > 0 do
    local lane = redis.call('LINDEX', partition.ring, 0)
    if not lane then
      return false
    end
    if limit <= 0 then
      return true
    end
    limit = limit - 1
    if not pcall(TURNS[string.sub(lane, 1, 1)], partition, lane) then
      -- The other lanes go on without it; the next heartbeat gives it another turn.
      redis.call('SADD', partition.parked, lane)
      redis.call('LPOP', partition.ring)
    end
  end
  return false
end

-- Gives turns, and what is left of them to whoever hears the doorbell: `promote` goes on until there are none.
local function admit_on(partition, limit)
  if admit(partition, limit) then
    ring_doorbell(partition)
  end
end

-- After changes of limits, and after what ended otherwise than by a settlement.
local TURNS_AFTER_CHANGE = 32
local function admit_reopened(partition)
  if partition.has_reopened then
    admit_on(partition, TURNS_AFTER_CHANGE)
  end
end

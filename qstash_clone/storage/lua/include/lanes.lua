--[[
lanes.lua: waiting lines and who may go next.

A message that is due waits in the list of its lane until it is admitted to the ready stream. A lane with waiting
messages is in exactly one of two places: the ring (it gets turns) or the parked set (it holds all it may).
A lane may hold as many places as are free: alone it gets half of the capacity, two busy lanes get a third each,
and there is always a place for one that holds none. So a destination that hangs never fills the workers.
Admitted messages are members of a set, not a count: repeating a step cannot leak a place.

Every function reads all keys that it will write before it writes the first. Should a script break off half-way all the
same (a slot on its way to another master), a message may be left in two places, of which one is dropped when its turn
comes, but never in none: it is put into the next place before it is taken out of the last.
]]
local function free_places(partition, ready)
  return partition.capacity - redis.call('XLEN', ready)
end

local function admit_one(partition, ready, lane, id)
  redis.call('XADD', ready, '*', 'i', id)
  redis.call('SADD', partition.prefix .. 'a:' .. lane, id)
  partition.free = partition.free - 1
end

-- What enqueue will need to know; reads only, so that a fault surfaces before anything was written.
local function look_at_lane(partition, ready, ring, lane)
  partition.free = partition.free or free_places(partition, ready)
  redis.call('LLEN', ring)
  return {
    waiting = redis.call('LLEN', partition.prefix .. 'l:' .. lane),
    admitted = redis.call('SCARD', partition.prefix .. 'a:' .. lane),
  }
end

-- A due message joins its lane, or goes straight to ready where nobody waits and there is room.
local function enqueue(partition, ready, ring, lane, look, id)
  if look.waiting == 0 and look.admitted < partition.free then
    admit_one(partition, ready, lane, id)
    return
  end
  if look.waiting == 0 then
    redis.call('RPUSH', ring, lane)
  end
  redis.call('RPUSH', partition.prefix .. 'l:' .. lane, id)
end

-- What release_place will need to know; reads only.
local function look_at_place(partition, ring, parked, lane)
  redis.call('SCARD', partition.prefix .. 'a:' .. lane)
  redis.call('SCARD', parked)
  redis.call('LLEN', ring)
end

local function unpark(ring, parked, lane)
  redis.call('RPUSH', ring, lane)
  redis.call('SREM', parked, lane)
end

-- The place of a message that left ready or flight is free again; a parked lane gets its turns back.
local function release_place(partition, ring, parked, lane, id)
  redis.call('SREM', partition.prefix .. 'a:' .. lane, id)
  if redis.call('SISMEMBER', parked, lane) == 1 then
    unpark(ring, parked, lane)
  end
end

local function take_turn(partition, ready, ring, parked, lane)
  local list = partition.prefix .. 'l:' .. lane
  local waiting = redis.call('LLEN', list)
  if waiting == 0 then
    redis.call('LPOP', ring)
    return
  end
  if redis.call('SCARD', partition.prefix .. 'a:' .. lane) >= partition.free then
    redis.call('SADD', parked, lane)
    redis.call('LPOP', ring)
    return
  end
  local id = redis.call('LINDEX', list, 0)
  -- A cancelled message leaves its line only here: taking it out of the middle would cost O(waiting).
  if string.byte(redis.call('GETRANGE', message_key(partition.prefix, id), 1, 1)) == QUEUED then
    admit_one(partition, ready, lane, id)
  end
  redis.call('LPOP', list)
  if waiting > 1 then
    redis.call('LMOVE', ring, ring, 'LEFT', 'RIGHT')
  else
    redis.call('LPOP', ring)
  end
end

-- Gives turns round-robin, at most `limit` of them.
local function admit(partition, ready, ring, parked, limit)
  partition.free = free_places(partition, ready)
  redis.call('SCARD', parked)
  while limit > 0 and partition.free > 0 do
    limit = limit - 1
    local lane = redis.call('LINDEX', ring, 0)
    if not lane then
      return
    end
    if not pcall(take_turn, partition, ready, ring, parked, lane) then
      -- The other lanes go on without it; the next heartbeat gives it another turn.
      redis.call('SADD', parked, lane)
      redis.call('LPOP', ring)
    end
  end
end

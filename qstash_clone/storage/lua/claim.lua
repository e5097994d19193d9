--[[
claim.lua: lease messages: entries already taken by a blocking read, those of expired leases, and new ones.

Repeated with the same taken entries it returns the same leases again. Other leases whose reply was lost expire.
Counts the claim before the work, so that the worker that gets a message that kills its workers can tell.
Looks again at what may have changed since a message was admitted: its queue or flow-control key may be paused by now,
allow less, or have used up its rate. Then it goes back to where it waited, without a claim or an attempt counted.

KEYS
  1  meta    hash    description of the partition
  2  ready   stream  work stream
  3  ring    list    lanes with waiting messages
  4  parked  set     lanes that hold all they may
  5  log     stream  transitions
ARGV
  1  version                int
  2  group                  string
  3  consumer               string  the worker asking
  4  limit                  int     at most this many messages
  5  lease_ms               int     reclaim entries idle for this long; 0 for none
  6  reclaim_until_ms       int     reclaim nothing after this time: while a call is held up, every lease ages
  7  record_bytes           int     return at most this much of a record, or its fixed part if that is more
  8  is_logged              0|1
  9  finished_retention_ms  int     how long the record of a cancelled message stays
  10+ taken                 two per entry: entry id, message id or "" for a doorbell
DERIVES  record and lanes of each message
RETURNS
  {"ok", now ms, current key, next key, rang 0|1, {fault, ...}, entry id, id, record, start within ms, ...}
     now is of Redis's own clock; start within: from now, because a rate counts the attempt now, 0 for no limit
  {"no_store"} | {"version", stored version}
COST  O(limit)
]]
--@include partition
--@include record
--@include log
--@include finish
--@include routes
--@include limits
--@include lanes
--@include members
local meta, ready = KEYS[1], KEYS[2]
local version, group, consumer, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local lease_ms, reclaim_until_ms, record_bytes = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local log, finished_retention_ms, first_taken = ARGV[8] == '1' and KEYS[5], tonumber(ARGV[9]), 10

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
redis.call('EXISTS', KEYS[3], KEYS[4], KEYS[5])
write_when_full(ready, group)

local REPLY_BYTES = 1048576
local MOST_CLAIMS = 255 -- as many as a record can count
local NEW, TAKEN, EXPIRED = 1, 2, 3 -- where an entry comes from
local rang, dropped, faults, reply_bytes = 0, 0, {}, 0
local reply = {'ok', partition.real_ms, partition.current_key, partition.next_key, 0, faults}

-- A fault at one entry leaves that entry pending: it is taken again when its lease is over.
local function guarded(step, ...)
  local done, problem = pcall(step, ...)
  if not done then
    faults[#faults + 1] = error_text(problem)
  end
end

local function drop(entry_id)
  redis.call('XACK', ready, group, entry_id)
  redis.call('XDEL', ready, entry_id)
  dropped = dropped + 1
end

-- The entry goes last: a step that breaks off leaves a message that is looked at again when its lease is over.
local function leave(entry_id, route, id)
  drop(entry_id)
  release_place(partition, route, id)
end

local function show(entry_id, id, record, head, start_within_ms)
  -- A large reply would hold up everybody else: what is over the budget goes without its body.
  local shown = math.min(#record, head.total_bytes)
  if reply_bytes + shown > REPLY_BYTES then
    shown = math.min(shown, head.fixed_bytes)
  end
  reply_bytes = reply_bytes + shown
  reply[#reply + 1] = entry_id
  reply[#reply + 1] = id
  reply[#reply + 1] = string.sub(record, 1, 1) .. string.char(ACTIVE) .. string.sub(record, 3, 3)
    .. struct.pack('>BI2', head.claims, head.generation) .. string.sub(record, 7, shown)
  reply[#reply + 1] = start_within_ms
end

-- Back to the head of the list that it came from, and behind those that were put there before it: what was admitted
-- earlier is refused earlier.
local function put_back(lane, list, id)
  local key = limits_key(partition, lane)
  local last = redis.call('HGET', key, 'b')
  if not last or redis.call('LINSERT', list, 'AFTER', last, id) < 1 then
    redis.call('LPUSH', list, id)
  end
  redis.call('HSET', key, 'b', id)
end

-- lane: whose limits refuse it; list: where it waits now.
local function turn_away(entry_id, id, head, route, lane, list, reopens_ms)
  local waiting = redis.call('LLEN', partition.prefix .. 'l:' .. lane)
  if lane == route.queue then
    waiting = waiting + redis.call('LLEN', list)
  end
  put_back(lane, list, id)
  if waiting == 0 or reopens_ms and redis.call('SISMEMBER', partition.blocked, lane) == 1 then
    block_lane(partition, lane, reopens_ms)
  end
  head.generation = (head.generation + 1) % GENERATIONS
  head.state = QUEUED
  write_head(message_key(partition.prefix, id), head)
  leave(entry_id, route, id)
end

-- Whether the queue lets the message start. One that does not has put it elsewhere.
local function pass_queue(entry_id, id, head, key, route)
  local limits = read_queue(partition, route.queue)
  if limits.deleted_ms and head.created_ms <= limits.deleted_ms then
    log_event(partition, log, 'Q', id)
    finish_message(partition, log, key, id, head, CANCELED, 'X', finished_retention_ms)
    leave(entry_id, route, id)
    end_member(partition, route, id)
    return false
  end
  if limits.is_paused then
    turn_away(entry_id, id, head, route, route.queue, partition.prefix .. 'r:' .. route.queue)
    return false
  end
  return true
end

-- Whether the flow-control key lets the message start, and within which time, if a window counts it now.
local function pass_flow(entry_id, id, head, route)
  local flow = route.flow
  local limits = read_flow(partition, flow)
  local holders = partition.prefix .. 'i:' .. flow
  local is_full = limits.parallelism > 0
    and redis.call('SCARD', holders) - redis.call('SISMEMBER', holders, id) >= limits.parallelism
  local is_used_up = limits.rate > 0 and limits.counted >= limits.rate
  if limits.is_paused or is_full or is_used_up then
    local list = partition.prefix .. 'l:' .. flow
    turn_away(entry_id, id, head, route, flow, list, not limits.is_paused and limits.window_ends_ms or nil)
    return false
  end
  redis.call('SADD', holders, id)
  if head.state == ACTIVE then
    -- A lost attempt that had no place any more, because its key was reset, has one again.
    redis.call('SADD', partition.prefix .. 'a:' .. flow, id)
  end
  if limits.rate == 0 then
    return true, 0
  end
  if limits.window_ends_ms then
    redis.call('HINCRBY', limits_key(partition, flow), 'wc', 1)
  else
    limits.window_ends_ms = partition.now_ms + limits.period_ms
    redis.call('HSET', limits_key(partition, flow), 'ws', partition.now_ms, 'wc', 1)
    if redis.call('SISMEMBER', partition.blocked, flow) == 1 then
      block_lane(partition, flow, limits.window_ends_ms)
    end
  end
  return true, math.floor(limits.window_ends_ms - window_margin_ms(limits.period_ms) / 2 - partition.now_ms)
end

local function lease(entry_id, id, source)
  if id == '' then
    drop(entry_id)
    rang = 1
    return
  end
  local key = message_key(partition.prefix, id)
  local record = redis.call('GETRANGE', key, 0, record_bytes - 1)
  local head = read_head(record)
  if head and head.fixed_bytes > #record then
    record = redis.call('GETRANGE', key, 0, head.fixed_bytes - 1)
  end
  if not head or (head.state == ACTIVE and source == NEW) then
    drop(entry_id)
    return
  end
  local route = parse_route(head.lane)
  if head.state ~= QUEUED and head.state ~= ACTIVE then
    -- Cancelled while it waited, or a settlement that broke off.
    look_at_place(partition, route, id)
    leave(entry_id, route, id)
    return
  end
  if head.flags == CANCEL_REQUESTED then
    -- The attempt that was under way was lost or handed back: the cancellation wins.
    look_at_place(partition, route, id)
    finish_message(partition, log, key, id, head, CANCELED, 'X', finished_retention_ms)
    leave(entry_id, route, id)
    end_member(partition, route, id)
    return
  end
  -- An earlier claim of this entry went through, but its reply was lost: nobody knows of its generation yet.
  local is_repeated = head.state == ACTIVE and source == TAKEN
  local start_within_ms = 0
  if route.flow or route.queue then
    look_at_route(partition, route)
    look_at_place(partition, route, id)
    if route.queue and not is_repeated and not pass_queue(entry_id, id, head, key, route) then
      return
    end
    -- The window that counted the earlier claim may be over, so the one in which the attempt will start counts it again.
    if route.flow and not (is_repeated and read_flow(partition, route.flow).rate == 0) then
      local may_start
      may_start, start_within_ms = pass_flow(entry_id, id, head, route)
      if not may_start then
        return
      end
    end
  end
  if is_repeated then
    show(entry_id, id, record, head, start_within_ms)
    return
  end
  head.generation = (head.generation + 1) % GENERATIONS
  head.claims = math.min(head.claims + 1, MOST_CLAIMS)
  head.state = ACTIVE
  write_head(key, head)
  log_event(partition, log, 'A', id)
  show(entry_id, id, record, head, start_within_ms)
end

local is_taken = {}
for at = first_taken, #ARGV, 2 do
  local entry_id, id = ARGV[at], ARGV[at + 1]
  local pending = redis.call('XPENDING', ready, group, entry_id, entry_id, 1)[1]
  if pending and pending[2] == consumer then
    is_taken[entry_id] = true
    guarded(lease, entry_id, id, TAKEN)
    limit = limit - 1
  end
end

if lease_ms > 0 and partition.real_ms <= reclaim_until_ms then
  local start, rounds = '0-0', 0
  repeat
    rounds = rounds + 1
    if limit < 1 then
      break
    end
    local taken = redis.call('XAUTOCLAIM', ready, group, consumer, lease_ms, start, 'COUNT', limit)
    start = taken[1]
    for _, entry in ipairs(taken[2]) do
      -- 6.2 answers false for an entry that was deleted while pending. One that was taken longer than a lease ago was
      -- leased above; here only its lease was renewed.
      if entry and not is_taken[entry[1]] then
        local fields = entry[2]
        guarded(lease, entry[1], fields[1] == 'i' and fields[2] or '', EXPIRED)
        limit = limit - 1
      end
    end
  until start == '0-0' or rounds >= 1000
end

if limit > 0 then
  local streams = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', limit, 'STREAMS', ready, '>')
  if streams then
    for _, entry in ipairs(streams[1][2]) do
      local fields = entry[2]
      guarded(lease, entry[1], fields[1] == 'i' and fields[2] or '', NEW)
    end
  end
end

count_finished(partition, meta)
if dropped > 0 then
  admit(partition, dropped + 8)
end
reply[5] = rang
return reply

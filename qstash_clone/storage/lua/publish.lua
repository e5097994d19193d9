--[[
publish.lua: store messages; the due ones join their lanes, the others wait in the timers.

A message whose id exists already was stored by an earlier try of the same call.

KEYS
  1  meta    hash        description of the partition
  2  ready   stream      work stream
  3  timers  sorted set  due times
  4  ring    list        lanes with waiting messages
  5  log     stream      transitions
ARGV
  1  version  int
  2+ messages  seven each: id, delay in ms, not before in unix ms or -1, lane, offset of the lane's host in the
               encoded message or 0, encoded message, body
DERIVES  record, waiting list and admitted set of each message
RETURNS
  {"ok", word, ...}   one word per message: "stored" or "error <text>"
  {"no_store"} | {"version", stored version}
COST  O(number of messages)
]]
--@include partition
--@include record
--@include log
--@include lanes
local meta, ready, timers, ring, log = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local version, first = ARGV[1], 2

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local now_ms = partition.now_ms
local earliest = redis.call('ZRANGE', timers, 0, 0)[1]
redis.call('XLEN', log)

local function store(id, delay_ms, not_before_ms, lane, lane_at, encoded, body)
  local key = message_key(partition.prefix, id)
  if redis.call('STRLEN', key) > 0 then
    return
  end
  local look = look_at_lane(partition, ready, ring, lane)
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
end

local reply = {'ok'}
for at = first, #ARGV, 7 do
  local id, delay_ms, not_before_ms = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local lane, lane_at, encoded, body = ARGV[at + 3], tonumber(ARGV[at + 4]), ARGV[at + 5], ARGV[at + 6]
  local stored, problem = pcall(store, id, delay_ms, not_before_ms, lane, lane_at, encoded, body)
  reply[#reply + 1] = stored and 'stored' or error_text(problem)
end

-- Workers sleep until the earliest timer they know of: a new earliest one has to wake them.
if partition.capacity > 0 and redis.call('ZRANGE', timers, 0, 0)[1] ~= earliest then
  redis.call('XADD', ready, '*', 'b', '1')
end
return reply

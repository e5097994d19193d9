--[[
due_schedules.lua: the schedules whose next fire time has come.

One that cannot be read by this release is passed over and looked at again a minute later.

KEYS
  1  meta       hash        description of the partition
  2  schedules  sorted set  schedule -> next fire time
ARGV
  1  version    int
  2  limit      int    at most this many records
  3  max_bytes  int    at most so much together, or one larger record
  4  spread     float  0 to 1: which of more than `limit`
DERIVES  the schedules' records
RETURNS
  {"ok", now ms, earliest fire time or -1, is frozen 0|1, {id, record, ...}, {id and fault, ...}}
  {"no_store"} | {"version", stored version}
COST  O(limit log schedules)
]]
--@include partition
--@include schedule
local meta, schedules = KEYS[1], KEYS[2]
local version, limit, max_bytes, spread = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
-- Redis lets a script go on writing at its memory limit if its first write is one that frees. This one changes nothing.
redis.call('ZREM', schedules, '')
local AGAIN_MS = 60000
local due = redis.call('ZCOUNT', schedules, '-inf', partition.now_ms)
local offset = math.floor(spread * math.max(0, due - limit))
local records, faults, total_bytes = {}, {}, 0

-- The record decides; where the set differs from it, a script broke off between its writes.
local function look_at(id)
  local key = schedule_key(partition, id)
  local head = read_schedule_head(key)
  if not head or head.next_ms == 0 then
    redis.call('ZREM', schedules, id)
    return
  end
  if head.next_ms > partition.now_ms then
    redis.call('ZADD', schedules, head.next_ms, id)
    return
  end
  total_bytes = total_bytes + redis.call('STRLEN', key)
  if #records == 0 or total_bytes <= max_bytes then
    records[#records + 1] = id
    records[#records + 1] = redis.call('GET', key)
  end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', schedules, '-inf', partition.now_ms, 'LIMIT', offset, limit)) do
  local done, problem = pcall(look_at, id)
  if not done then
    redis.call('ZADD', schedules, partition.now_ms + AGAIN_MS, id)
    faults[#faults + 1] = id .. ': ' .. error_text(problem)
  end
end
local earliest = redis.call('ZRANGE', schedules, 0, 0, 'WITHSCORES')[2]
return {'ok', partition.now_ms, earliest and tonumber(earliest) or -1, partition.is_frozen and 1 or 0, records, faults}

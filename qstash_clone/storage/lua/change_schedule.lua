--[[
change_schedule.lua: pause, resume or delete a schedule.

KEYS
  1  meta       hash        description of the partition
  2  schedules  sorted set  schedule -> next fire time
  3  catalogue  sorted set  schedule -> when it was created
  4  record     string      of the schedule
ARGV
  1  version          int
  2  id               string
  3  change           string  "pause", "resume" or "delete"
  4  revision         int     to resume only: the revision whose cron expression `next_ms` was computed from
  5  counted_from_ms  int     and from which moment
  6  next_ms          int     first instant, 0 for none
DERIVES  work stream, for a doorbell
RETURNS
  {"ok"}             it is so now, perhaps as before
  {"not_found"}
  {"changed"}        another revision: the next instant is to be computed again
  {"time", now ms}   `next_ms` is not the first instant after now: to be computed again
  {"no_store"} | {"version", stored version}
COST  O(log schedules)
]]
--@include partition
--@include schedule
local meta, schedules, catalogue, record = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local version, id, change, revision = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local counted_from_ms, next_ms = tonumber(ARGV[5]), tonumber(ARGV[6])

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
redis.call('ZCARD', schedules)
redis.call('ZCARD', catalogue)
redis.call('XLEN', partition.ready)

if change == 'delete' then
  local existed = redis.call('STRLEN', record) > 0
  redis.call('ZREM', schedules, id)
  redis.call('ZREM', catalogue, id)
  redis.call('DEL', record)
  return {existed and 'ok' or 'not_found'}
end

local head = read_schedule_head(record)
if not head then
  return {'not_found'}
end
if change == 'pause' then
  if head.flags == PAUSED then
    return {'ok'}
  end
  -- Redis lets a script go on writing at its memory limit if its first write is one that frees.
  redis.call('ZREM', schedules, id)
  head.flags, head.revision, head.next_ms = PAUSED, next_revision(meta), 0
  write_schedule_head(record, head)
  return {'ok'}
end

if head.flags ~= PAUSED then
  return {'ok'}
end
if head.revision ~= revision then
  return {'changed'}
end
if not is_next(partition, counted_from_ms, next_ms) then
  return {'time', partition.now_ms}
end
head.flags, head.revision, head.next_ms = 0, next_revision(meta), next_ms
write_schedule_head(record, head)
if next_ms > 0 then
  await_instant(partition, schedules, id, next_ms)
end
return {'ok'}

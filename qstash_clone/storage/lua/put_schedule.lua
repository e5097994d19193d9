--[[
put_schedule.lua: create a schedule, paused or not, or replace one entirely.

KEYS
  1  meta       hash        description of the partition
  2  schedules  sorted set  schedule -> next fire time
  3  catalogue  sorted set  schedule -> when it was created
  4  record     string      of the schedule
ARGV
  1  version          int
  2  id               string
  3  most             int    no new schedule where this partition has so many
  4  counted_from_ms  int    what `next_ms` was computed from
  5  next_ms          int    first instant
  6  paused           int    1 or 0
  7  definition       bytes
  8  body             bytes
DERIVES  work stream, for a doorbell
RETURNS
  {"ok", created ms, revision}
  {"time", now ms}   `next_ms` is not the first instant after now: to be computed again
  {"quota"}
  {"no_store"} | {"version", stored version}
COST  O(log schedules)
]]
--@include partition
--@include schedule
local meta, schedules, catalogue, record = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local version, id, most, counted_from_ms, next_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local is_paused, definition, body = ARGV[6] == '1', ARGV[7], ARGV[8]

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local exists = redis.call('STRLEN', record) > 0
local count = redis.call('ZCARD', catalogue)
redis.call('ZCARD', schedules)
redis.call('XLEN', partition.ready)
if not exists and count >= most then
  return {'quota'}
end
if not is_next(partition, counted_from_ms, next_ms) then
  return {'time', partition.now_ms}
end

local revision = next_revision(meta)
redis.call('SET', record,
  new_schedule_head(is_paused and PAUSED or 0, revision, is_paused and 0 or next_ms, partition.now_ms, #definition,
    #body) .. definition .. body)
redis.call('ZADD', catalogue, partition.now_ms, id)
if is_paused then
  redis.call('ZREM', schedules, id)
else
  await_instant(partition, schedules, id, next_ms)
end
return {'ok', partition.now_ms, revision}

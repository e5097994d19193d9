--[[
postpone_schedule.lua: look at a due schedule again later; its instant stays.

KEYS
  1  meta       hash        description of the partition
  2  schedules  sorted set  schedule -> next fire time
  3  record     string      of the schedule
ARGV
  1  version   int
  2  id        string
  3  revision  int  nothing happens unless the schedule still has this revision
  4  due_ms    int  and this fire time
  5  delay_ms  int
RETURNS
  {"ok"}
  {"no_store"} | {"version", stored version}
COST  O(log schedules)
]]
--@include partition
--@include schedule
local meta, schedules, record = KEYS[1], KEYS[2], KEYS[3]
local version, id, revision, due_ms, delay_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local head = read_schedule_head(record)
if head and head.revision == revision and head.next_ms == due_ms then
  -- Redis lets a script go on writing at its memory limit if its first write is one that frees. This one changes nothing.
  redis.call('ZREM', schedules, '')
  redis.call('ZADD', schedules, 'XX', partition.now_ms + delay_ms, id)
end
return {'ok'}

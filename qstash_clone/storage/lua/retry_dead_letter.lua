--[[
retry_dead_letter.lua: publish a dead letter again as a fresh message and take it out of the queue.

KEYS
  1  meta   hash    description of the partition
  2  ready  stream  work stream
  3  ring   list    lanes with waiting messages
  4  log    stream  transitions
  5  dlq    stream  dead letters
ARGV
  1  version   int
  2  entry     string  entry id in the dlq
  3  new_id    bytes   id of the fresh message
  4  grace_ms  int     how long the old record stays readable
DERIVES  records of both messages, waiting list and admitted set of the new one
RETURNS
  {"stored"} (also if an earlier try of the same call did it) | {"not_found"}
  {"no_store"} | {"version", stored version}
COST  O(size of the message)
]]
--@include partition
--@include record
--@include log
--@include lanes
local meta, ready, ring, log, dlq = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local version, entry, new_id, grace_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end

local new_key = message_key(partition.prefix, new_id)
if redis.call('STRLEN', new_key) > 0 then
  return {'stored'}
end
local found = redis.call('XRANGE', dlq, entry, entry)[1]
if not found then
  return {'not_found'}
end
local old_key = message_key(partition.prefix, found[2][2])
local record = redis.call('GET', old_key)
local old = record and read_head(record)
if not old then
  redis.call('XDEL', dlq, entry)
  return {'not_found'}
end

local look = look_at_lane(partition, ready, ring, old.lane)
redis.call('XLEN', log)
local now_ms = partition.now_ms
local head = new_head(QUEUED, now_ms, now_ms, now_ms, old.lane_at, old.lane_bytes, old.meta_bytes, old.body_bytes)
redis.call('SET', new_key, head .. string.sub(record, HEAD_BYTES + 1, old.total_bytes))
enqueue(partition, ready, ring, old.lane, look, new_id)
log_event(log, 'C', new_id)
redis.call('XDEL', dlq, entry)
redis.call('PEXPIRE', old_key, grace_ms)
return {'stored'}

--[[
retry_dead_letter.lua: publish a dead letter again as a fresh message and take it out of the queue.

KEYS
  1  meta   hash    description of the partition
  2  ready  stream  work stream
  3  ring   list    lanes with waiting messages
  4  log    stream  transitions
  5  dlq    stream  dead letters
ARGV
  1  version                int
  2  is_logged              0|1
  3  finished_retention_ms  int     how long the old record stays
  4  entry                  string  entry id in the dlq
  5  new_id                 bytes   id of the fresh message
  6  lane                   string  of the fresh message; read only with `encoded`
  7  lane_at                int     offset of the lane's host in the encoded message or 0
  8  encoded                bytes   encoded message with other options, or "" for those of the old one
DERIVES  records of both messages, waiting list and admitted set of the new one
RETURNS
  {"stored"} (also if an earlier try of the same call did it) | {"not_found"}
  {"no_store"} | {"version", stored version}
COST  O(size of the message)
]]
--@include partition
--@include record
--@include log
--@include finish
--@include lanes
local meta, ready, ring, dlq = KEYS[1], KEYS[2], KEYS[3], KEYS[5]
local version, log, retention_ms = ARGV[1], ARGV[2] == '1' and KEYS[4], tonumber(ARGV[3])
local entry, new_id, lane, lane_at, encoded = ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8]

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
local old_id = found[2][2]
local old_key = message_key(partition.prefix, old_id)
local record = redis.call('GET', old_key)
local old = record and read_head(record)
if not old then
  redis.call('XDEL', dlq, entry)
  return {'not_found'}
end

local lane_bytes, meta_bytes, content = old.lane_bytes, old.meta_bytes, nil
if #encoded > 0 then
  local body = string.sub(record, old.fixed_bytes + 1, old.total_bytes)
  lane_bytes, meta_bytes = lane_at > 0 and #lane - 2 or #lane, #encoded
  content = (lane_at > 0 and '' or lane) .. encoded .. body
else
  lane, lane_at = old.lane, old.lane_at
  content = string.sub(record, HEAD_BYTES + 1, old.total_bytes)
end
local look = look_at_lane(partition, ready, ring, lane)
redis.call('XLEN', KEYS[4])
local now_ms = partition.now_ms
local head = new_head(QUEUED, now_ms, now_ms, now_ms, lane_at, lane_bytes, meta_bytes, old.body_bytes)
redis.call('SET', new_key, head .. content)
enqueue(partition, ready, ring, lane, look, new_id)
log_event(log, 'C', new_id)
redis.call('XDEL', dlq, entry)
retire_record(partition, log, old_key, old_id, 'Z', retention_ms)
count_finished(partition, meta)
return {'stored'}

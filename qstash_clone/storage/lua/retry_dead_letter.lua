--[[
retry_dead_letter.lua: publish a dead letter again as a fresh message and take it out of the queue.

KEYS
  1  meta   hash    description of the partition
  2  log    stream  transitions
  3  dlq    stream  dead letters
ARGV
  1  version                int
  2  is_logged              0|1
  3  finished_retention_ms  int     how long the old record stays
  4  entry                  string  entry id in the dlq
  5  new_id                 bytes   id of the fresh message
  6  lane                   string  of the fresh message
  7  lane_at                int     offset of the lane's host in the encoded message or 0
  8  encoded                bytes   encoded message; its body is that of the old one
  9  limits                 bytes   for its flow-control key, 12 bytes or "", see members.lua
  10 delay_ms               int     of the fresh message: without one it joins its lane, else it waits in the timers
  11 not_before_ms          int     unix time in place of the delay, or -1
DERIVES  records of both messages, lanes of the new one, timers
RETURNS
  {"stored"} (also if an earlier try of the same call did it) | {"not_found"}
  {"no_store"} | {"version", stored version}
COST  O(size of the message)
]]
--@include partition
--@include record
--@include log
--@include finish
--@include routes
--@include limits
--@include lanes
--@include members
--@include store_message
local meta, dlq = KEYS[1], KEYS[3]
local version, log, retention_ms = ARGV[1], ARGV[2] == '1' and KEYS[2], tonumber(ARGV[3])
local entry, new_id = ARGV[4], ARGV[5]

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

local message = {
  id = new_id,
  delay_ms = tonumber(ARGV[10]),
  not_before_ms = tonumber(ARGV[11]),
  lane = ARGV[6],
  lane_at = tonumber(ARGV[7]),
  encoded = ARGV[8],
  body = string.sub(record, old.fixed_bytes + 1, old.total_bytes),
  limits = ARGV[9],
}
look_at_message(partition, message)
redis.call('XLEN', KEYS[2])
store_message(partition, log, message)
redis.call('XDEL', dlq, entry)
retire_record(partition, log, old_key, old_id, 'Z', retention_ms)
count_finished(partition, meta)
end_of_storing(partition)
return {'stored'}

--[[
cancel.lua: cancel one message: at once while it waits, at the end of its attempt while it is in flight.

Its id stays where it waits (a lane or the ready stream) until its turn comes and is dropped there.

KEYS
  1  meta    hash        description of the partition
  2  timers  sorted set  due times
  3  ring    list        lanes with waiting messages
  4  parked  set         lanes that hold all they may
  5  log     stream      transitions
ARGV
  1  version   int
  2  id        bytes
  3  grace_ms  int  how long its record stays
DERIVES  record and admitted set of the message
RETURNS
  {"canceled"} | {"requested"} | {"already_requested"} | {"already_canceled"} | {"not_found"}
  {"no_store"} | {"version", stored version}
COST  O(1)
]]
--@include partition
--@include record
--@include log
--@include lanes
local meta, timers, ring, parked, log = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local version, id, grace_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end

local key = message_key(partition.prefix, id)
local head = read_head(redis.call('GETRANGE', key, 0, HEAD_AND_LANE_BYTES - 1))
if not head or head.state == DELIVERED or head.state == FAILED then
  return {'not_found'}
end
if head.state == CANCELED then
  return {'already_canceled'}
end
redis.call('EXISTS', timers, ring, parked, log)
look_at_place(partition, ring, parked, head.lane)
if head.state == ACTIVE then
  if head.flags == CANCEL_REQUESTED then
    return {'already_requested'}
  end
  head.flags = CANCEL_REQUESTED
  -- PERSIST is a write that Redis allows when it is full; after it the others are allowed too.
  redis.call('PERSIST', key)
  write_head(key, head)
  log_event(log, 'Q', id)
  return {'requested'}
end

head.state = CANCELED
head.due_ms = partition.now_ms
redis.call('PERSIST', key)
write_head(key, head)
redis.call('PEXPIRE', key, grace_ms)
redis.call('ZREM', timers, id)
release_place(partition, ring, parked, head.lane, id)
log_event(log, 'Q', id)
log_event(log, 'X', id)
return {'canceled'}

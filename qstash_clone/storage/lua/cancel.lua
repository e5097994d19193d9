--[[
cancel.lua: cancel messages: at once those that wait, at the end of their attempt those in flight.

Their ids stay where they wait (a lane or the ready stream) until their turn comes and are dropped there.

KEYS
  1  meta    hash        description of the partition
  2  timers  sorted set  due times
  3  ring    list        lanes with waiting messages
  4  parked  set         lanes that hold all they may
  5  log     stream      transitions
ARGV
  1  version                int
  2  is_logged              0|1
  3  finished_retention_ms  int    how long their records stay
  4+ ids                    bytes
DERIVES  record and lanes of each message, and of what is admitted in their stead
RETURNS
  {"ok", word, ...}   one word per id: "canceled", "requested", "already_requested", "already_canceled", "not_found"
                      or "error <text>"
  {"no_store"} | {"version", stored version}
COST  O(number of ids)
]]
--@include partition
--@include record
--@include log
--@include finish
--@include routes
--@include limits
--@include lanes
--@include members
local meta, timers = KEYS[1], KEYS[2]
local version, log, retention_ms, first = ARGV[1], ARGV[2] == '1' and KEYS[5], tonumber(ARGV[3]), 4

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
redis.call('EXISTS', timers, KEYS[3], KEYS[4], KEYS[5], partition.ready)

local function cancel(id)
  local key = message_key(partition.prefix, id)
  local head = read_head(redis.call('GETRANGE', key, 0, HEAD_AND_LANE_BYTES - 1))
  if not head or head.state == DELIVERED or head.state == FAILED then
    return 'not_found'
  end
  if head.state == CANCELED then
    return 'already_canceled'
  end
  local route = parse_route(head.lane)
  look_at_place(partition, route, id)
  if head.state == ACTIVE then
    if head.flags == CANCEL_REQUESTED then
      return 'already_requested'
    end
    head.flags = CANCEL_REQUESTED
    -- PERSIST is a write that Redis allows when it is full; after it the others are allowed too.
    redis.call('PERSIST', key)
    write_head(key, head)
    log_event(partition, log, 'Q', id)
    return 'requested'
  end
  redis.call('PERSIST', key)
  log_event(partition, log, 'Q', id)
  if head.state == QUEUED then
    note_cancelled_in_line(partition, route, id)
  end
  finish_message(partition, log, key, id, head, CANCELED, 'X', retention_ms)
  redis.call('ZREM', timers, id)
  release_place(partition, route, id)
  end_member(partition, route, id)
  return 'canceled'
end

local reply = {'ok'}
for at = first, #ARGV do
  local done, word = pcall(cancel, ARGV[at])
  reply[#reply + 1] = done and word or error_text(word)
end
count_finished(partition, meta)
admit_reopened(partition)
return reply

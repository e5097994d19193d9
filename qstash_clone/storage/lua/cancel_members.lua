--[[
cancel_members.lua: cancel messages of a deleted queue that wait. Those in flight end by themselves.

Their ids stay in the line until their turn comes and are dropped there; the last of several calls gives them turns.

KEYS
  1  meta  hash    description of the partition
  2  log   stream  transitions
ARGV
  1  version                int
  2  is_logged              0|1
  3  finished_retention_ms  int    how long their records stay
  4  name                   string of the queue
  5  deleted_ms             int    members that were created later belong to a new queue
  6  turns                  int    to be given afterwards, at most
  7+ ids                    bytes  others than waiting members are passed over
DERIVES  record and lanes of each message and of what is admitted
RETURNS
  {"ok", cancelled, in flight, members that are not final, fault, ...}
  {"no_store"} | {"version", stored version}
COST  O(number of ids + turns)
]]
--@include partition
--@include record
--@include log
--@include finish
--@include routes
--@include limits
--@include lanes
--@include members
local meta = KEYS[1]
local version, log, retention_ms = ARGV[1], ARGV[2] == '1' and KEYS[2], tonumber(ARGV[3])
local lane, deleted_ms, turns, first = 'q:' .. ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), 7

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
redis.call('EXISTS', partition.timers, partition.ready, KEYS[2])
-- Redis lets a script go on writing at its memory limit if its first write is one that frees. This one changes nothing,
-- and comes before the turns, which may be all that a call does.
redis.call('ZREM', partition.timers, '')
local cancelled, in_flight, faults = 0, 0, {}

local function cancel(id)
  local key = message_key(partition.prefix, id)
  local head = read_head(redis.call('GETRANGE', key, 0, HEAD_AND_LANE_BYTES - 1))
  if not head or head.created_ms > deleted_ms then
    return
  end
  local route = parse_route(head.lane)
  if route.queue ~= lane then
    return
  end
  if head.state == ACTIVE then
    in_flight = in_flight + 1
  end
  if head.state ~= DELAYED and head.state ~= QUEUED then
    return
  end
  look_at_place(partition, route, id)
  log_event(partition, log, 'Q', id)
  if head.state == QUEUED then
    note_cancelled_in_line(partition, route, id)
  end
  finish_message(partition, log, key, id, head, CANCELED, 'X', retention_ms)
  redis.call('ZREM', partition.timers, id)
  release_place(partition, route, id)
  end_member(partition, route, id)
  cancelled = cancelled + 1
end

for at = first, #ARGV do
  local done, problem = pcall(cancel, ARGV[at])
  if not done then
    faults[#faults + 1] = error_text(problem)
  end
end
count_finished(partition, meta)
-- Not before the last call: it would be the next members of the queue that go on.
if turns > 0 then
  admit(partition, turns)
end
local members = tonumber(redis.call('HGET', limits_key(partition, lane), 'n')) or 0
return {'ok', cancelled, in_flight, members, unpack(faults)}

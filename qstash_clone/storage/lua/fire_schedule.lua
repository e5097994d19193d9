--[[
fire_schedule.lua: publish what due schedules publish, once per schedule and instant, and set their next fire times.

A firing applies to one revision and one fire time of its schedule. Of any number of workers that plan it one is
"fired", and the others change nothing.

KEYS
  1  meta       hash        description of the partition
  2  log        stream      transitions
  3  schedules  sorted set  schedule -> next fire time
ARGV
  1  version    int
  2  is_logged  0|1
  3+ firings    ten each: schedule, revision, fire time, instant (that it is noted for) or 0, next fire time or 0, not
                before in unix ms, limits for the flow-control key (12 bytes or "", see members.lua), error or "", ids
                of its messages (12 bytes each), number of messages to store here; and behind them three per such
                message, in the order of the ids: lane, offset of the lane's host in the encoded message or 0, encoded
                message
DERIVES  the schedules' records; record and lanes of each message, timers, work stream
RETURNS
  {"ok", word, ...}   one word per firing: "fired", "stale", "already" (the schedule is where this firing leaves it) or
                      "error <text>"
  {"no_store"} | {"version", stored version}
COST  O(number of firings log schedules + number of messages)
]]
--@include partition
--@include record
--@include log
--@include routes
--@include limits
--@include lanes
--@include members
--@include store_message
--@include schedule
local meta, schedules = KEYS[1], KEYS[3]
local version, log, first = ARGV[1], ARGV[2] == '1' and KEYS[2], 3

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local FIRING_ARGUMENTS, MESSAGE_ARGUMENTS, ID_BYTES = 10, 3, 12
redis.call('ZCARD', schedules)
if log then
  redis.call('XLEN', log)
end

local function read_messages(at, behind, key, head)
  local messages, ids = {}, ARGV[at + 8]
  local body = redis.call('GETRANGE', key, head.body_at, head.ids_at - 1)
  for place = at + FIRING_ARGUMENTS, behind - 1, MESSAGE_ARGUMENTS do
    messages[#messages + 1] = {
      id = string.sub(ids, #messages * ID_BYTES + 1, (#messages + 1) * ID_BYTES),
      lane = ARGV[place],
      lane_at = tonumber(ARGV[place + 1]),
      encoded = ARGV[place + 2],
      delay_ms = 0,
      not_before_ms = tonumber(ARGV[at + 5]),
      body = body,
      limits = ARGV[at + 6],
    }
  end
  return messages
end

local function fire(at, behind)
  local id, revision, due_ms = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local instant_ms, next_ms, fault, ids = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), ARGV[at + 7], ARGV[at + 8]
  local key = schedule_key(partition, id)
  local head = read_schedule_head(key)
  if not head or head.revision ~= revision or head.next_ms ~= due_ms then
    return head and head.revision == revision and head.next_ms == next_ms and 'already' or 'stale'
  end
  local messages = {}
  if behind > at + FIRING_ARGUMENTS then
    messages = read_messages(at, behind, key, head)
  end
  for _, message in ipairs(messages) do
    look_at_message(partition, message)
    if #messages > 1 then
      message.look = nil
    end
  end
  for _, message in ipairs(messages) do
    store_message(partition, log, message)
  end
  -- Last: a schedule that moved on without its messages would have lost an instant.
  if instant_ms > 0 then
    if #ids + #fault > 0 then
      redis.call('SETRANGE', key, head.ids_at, ids .. fault)
    end
    head.last_ms, head.ids_bytes, head.error_bytes = instant_ms, #ids, #fault
  end
  head.next_ms = next_ms
  write_schedule_head(key, head)
  if next_ms > 0 then
    redis.call('ZADD', schedules, next_ms, id)
  else
    redis.call('ZREM', schedules, id)
  end
  return 'fired'
end

local reply, at = {'ok'}, first
while at <= #ARGV do
  local behind = at + FIRING_ARGUMENTS + MESSAGE_ARGUMENTS * tonumber(ARGV[at + 9])
  local done, word = pcall(fire, at, behind)
  reply[#reply + 1] = done and word or error_text(word)
  at = behind
end
end_of_storing(partition)
return reply

--[[
settle.lua: end attempts: state, log, retry timer or dead letter, callbacks, place in the lane, acknowledgement, together.

Callbacks are stored only by the call that settles the attempt, and not for a message that ends cancelled.

KEYS
  1  meta    hash        description of the partition
  2  ready   stream      work stream
  3  timers  sorted set  due times
  4  ring    list        lanes with waiting messages
  5  parked  set         lanes that hold all they may
  6  log     stream      transitions
  7  dlq     stream      dead letters
ARGV
  1  version                int
  2  group                  string
  3  is_logged              0|1
  4  finished_retention_ms  int  how long the record of a finished message stays
  5  dlq_retention_ms       int
  6  partitions             int
  7  partition              int  the number of this one; both for the ids of dead letters
  8+ attempts  seven each: entry id, message id, generation, kind (d delivered, r retry, f failed), delay in ms,
               encoded attempt or "", number of callbacks; and behind them eight per callback: id, delay in ms, lane,
               offset of the lane's host in the encoded message or 0, encoded message, body, limits for its
               flow-control key (12 bytes or "", see members.lua), offset in the body at which the id of the dead
               letter is put in or -1
DERIVES  record and lanes of each message and callback, callbacks of members of queues
RETURNS
  {"ok", word, ...}   one word per attempt: "settled", "canceled", "done" (settled by an earlier try of the same
                      call), "stale" (another generation has the message), "error <text>"
  {"no_store"} | {"version", stored version}
COST  O(number of attempts and callbacks)
]]
--@include partition
--@include record
--@include log
--@include finish
--@include routes
--@include limits
--@include lanes
--@include members
--@include dead_letter
--@include store_message
local meta, ready, timers, dlq = KEYS[1], KEYS[2], KEYS[3], KEYS[7]
local version, group, log, finished_retention_ms = ARGV[1], ARGV[2], ARGV[3] == '1' and KEYS[6], tonumber(ARGV[4])
local dlq_retention_ms, partitions, number, first = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), 8

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local ATTEMPT_ARGUMENTS, CALLBACK_ARGUMENTS = 7, 8
local now_ms = partition.now_ms
redis.call('EXISTS', ready, timers, KEYS[4], KEYS[5])
redis.call('XLEN', KEYS[6])
write_when_full(ready, group)

local function look_at_callbacks(at, behind)
  local callbacks = {}
  for child = at, behind - 1, CALLBACK_ARGUMENTS do
    local callback = {
      id = ARGV[child],
      delay_ms = tonumber(ARGV[child + 1]),
      not_before_ms = -1,
      lane = ARGV[child + 2],
      lane_at = tonumber(ARGV[child + 3]),
      encoded = ARGV[child + 4],
      body = ARGV[child + 5],
      limits = ARGV[child + 6],
      dlq_id_at = tonumber(ARGV[child + 7]),
    }
    look_at_message(partition, callback)
    callback.look = nil
    callbacks[#callbacks + 1] = callback
  end
  return callbacks
end

local function store_callbacks(callbacks, dlq_id)
  for _, callback in ipairs(callbacks) do
    local body, dlq_id_at = callback.body, callback.dlq_id_at
    if dlq_id and dlq_id_at >= 0 then
      callback.body = string.sub(body, 1, dlq_id_at) .. dlq_id .. string.sub(body, dlq_id_at + 1)
    end
    -- One that an earlier try has stored is waited for already, and may be over by now.
    if callback.route.slot_member and not callback.is_stored then
      redis.call('SADD', callbacks_key(partition, callback.route.slot_member), callback.id)
    end
    store_message(partition, log, callback)
  end
end

-- The dead letter and the callbacks first, then the record, the entry last: a step that breaks off leaves a message
-- that is looked at again when its lease is over.
local function settle(entry_id, id, generation, kind, delay_ms, attempt, callbacks_at, behind)
  local key = message_key(partition.prefix, id)
  local head = read_head(redis.call('GETRANGE', key, 0, HEAD_AND_LANE_BYTES - 1))
  if not head or head.generation ~= generation then
    return 'stale'
  end
  if head.state ~= ACTIVE then
    return head.state == CANCELED and 'canceled' or 'done'
  end
  local is_canceled = kind ~= 'd' and head.flags == CANCEL_REQUESTED
  local route = parse_route(head.lane)
  look_at_place(partition, route, id)
  if not is_canceled then
    local callbacks = look_at_callbacks(callbacks_at, behind)
    local dlq_id = kind == 'f' and add_dead_letter(partition, dlq, id, partitions, number)
    store_callbacks(callbacks, dlq_id)
  end
  head.claims = 0
  head.attempts = head.attempts + 1
  if kind == 'd' then
    finish_message(partition, log, key, id, head, DELIVERED, 'D', finished_retention_ms)
  else
    append_attempt(key, now_ms, attempt)
    log_event(partition, log, 'E', id, struct.pack('>I4', head.attempts))
    if is_canceled then
      finish_message(partition, log, key, id, head, CANCELED, 'X', finished_retention_ms)
    elseif kind == 'r' then
      head.state = DELAYED
      head.due_ms = now_ms + delay_ms
      redis.call('ZADD', timers, head.due_ms, id)
      write_head(key, head)
      log_event(partition, log, 'R', id, struct.pack('>I6', head.due_ms))
    else
      head.state, head.due_ms = FAILED, now_ms
      write_head(key, head)
      redis.call('PEXPIRE', key, dlq_retention_ms)
      log_event(partition, log, 'F', id)
    end
  end
  redis.call('XACK', ready, group, entry_id)
  redis.call('XDEL', ready, entry_id)
  release_place(partition, route, id)
  if head.state ~= DELAYED then
    end_member(partition, route, id)
  end
  return is_canceled and 'canceled' or 'settled'
end

local reply, at = {'ok'}, first
while at <= #ARGV do
  local callbacks_at = at + ATTEMPT_ARGUMENTS
  local behind = callbacks_at + CALLBACK_ARGUMENTS * tonumber(ARGV[at + 6])
  local done, word = pcall(settle, ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3], tonumber(ARGV[at + 4]),
    ARGV[at + 5], callbacks_at, behind)
  reply[#reply + 1] = done and word or error_text(word)
  at = behind
end
count_finished(partition, meta)
admit(partition, 2 * #reply + 8)
end_of_storing(partition)
return reply

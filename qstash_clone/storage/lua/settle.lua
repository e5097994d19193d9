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
               encoded attempt or "", number of callbacks; and behind them seven per callback: id, delay in ms, lane,
               offset of the lane's host in the encoded message or 0, encoded message, body, offset in the body at
               which the id of the dead letter is put in or -1
DERIVES  record, waiting list and admitted set of each message and callback
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
--@include lanes
--@include dead_letter
--@include store_message
local meta, ready, timers, ring, parked, dlq = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[7]
local version, group, log, finished_retention_ms = ARGV[1], ARGV[2], ARGV[3] == '1' and KEYS[6], tonumber(ARGV[4])
local dlq_retention_ms, partitions, number, first = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), 8

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local ATTEMPT_ARGUMENTS, CALLBACK_ARGUMENTS = 7, 7
local now_ms = partition.now_ms
local earliest
redis.call('EXISTS', ready, timers, ring, parked)
redis.call('XLEN', KEYS[6])
write_when_full(ready, group)

local function look_at_callbacks(at, behind)
  for child = at, behind - 1, CALLBACK_ARGUMENTS do
    if ARGV[child + 1] ~= '0' then
      earliest = earliest or {id = earliest_timer(timers)}
    end
    look_at_message(partition, ready, timers, ring, ARGV[child], ARGV[child + 2])
  end
end

local function store_callbacks(at, behind, dlq_id)
  for child = at, behind - 1, CALLBACK_ARGUMENTS do
    local body, dlq_id_at = ARGV[child + 5], tonumber(ARGV[child + 6])
    if dlq_id and dlq_id_at >= 0 then
      body = string.sub(body, 1, dlq_id_at) .. dlq_id .. string.sub(body, dlq_id_at + 1)
    end
    store_message(partition, ready, timers, ring, log, ARGV[child], tonumber(ARGV[child + 1]), -1, ARGV[child + 2],
      tonumber(ARGV[child + 3]), ARGV[child + 4], body)
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
  look_at_place(partition, ring, parked, head.lane)
  if not is_canceled then
    look_at_callbacks(callbacks_at, behind)
    local dlq_id = kind == 'f' and add_dead_letter(dlq, id, partitions, number)
    store_callbacks(callbacks_at, behind, dlq_id)
  end
  head.claims = 0
  head.attempts = head.attempts + 1
  if kind == 'd' then
    finish_message(partition, log, key, id, head, DELIVERED, 'D', finished_retention_ms)
  else
    append_attempt(key, now_ms, attempt)
    log_event(log, 'E', id, struct.pack('>I4', head.attempts))
    if is_canceled then
      finish_message(partition, log, key, id, head, CANCELED, 'X', finished_retention_ms)
    elseif kind == 'r' then
      head.state = DELAYED
      head.due_ms = now_ms + delay_ms
      redis.call('ZADD', timers, head.due_ms, id)
      write_head(key, head)
      log_event(log, 'R', id, struct.pack('>I6', head.due_ms))
    else
      head.state, head.due_ms = FAILED, now_ms
      write_head(key, head)
      redis.call('PEXPIRE', key, dlq_retention_ms)
      log_event(log, 'F', id)
    end
  end
  redis.call('XACK', ready, group, entry_id)
  redis.call('XDEL', ready, entry_id)
  release_place(partition, ring, parked, head.lane, id)
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
admit(partition, ready, ring, parked, #reply + 8)
if earliest then
  ring_for_timers(partition, ready, timers, earliest.id)
end
return reply

--[[
settle.lua: end attempts: state, log, retry timer or dead letter, place in the lane and acknowledgement, together.

KEYS
  1  meta    hash        description of the partition
  2  ready   stream      work stream
  3  timers  sorted set  due times
  4  ring    list        lanes with waiting messages
  5  parked  set         lanes that hold all they may
  6  log     stream      transitions
  7  dlq     stream      dead letters
ARGV
  1  version           int
  2  group             string
  3  grace_ms          int  how long a finished message stays readable
  4  dlq_retention_ms  int
  5+ six per attempt: entry id, message id, generation, kind (d delivered, r retry, f failed), delay in ms,
     encoded attempt or ""
DERIVES  record, waiting list and admitted set of each message
RETURNS
  {"ok", word, ...}   one word per attempt: "settled", "canceled", "done" (settled by an earlier try of the same
                      call), "stale" (another generation has the message), "error <text>"
  {"no_store"} | {"version", stored version}
COST  O(number of attempts)
]]
--@include partition
--@include record
--@include log
--@include lanes
--@include dead_letter
local meta, ready, timers, ring, parked, log, dlq = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local version, group = ARGV[1], ARGV[2]
local grace_ms, dlq_retention_ms, first = tonumber(ARGV[3]), tonumber(ARGV[4]), 5

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local now_ms = partition.now_ms
redis.call('EXISTS', ready, timers, ring, parked, log, dlq)
write_when_full(ready, group)

local function finish(key, head, state)
  head.state = state
  head.due_ms = now_ms
  write_head(key, head)
  redis.call('PEXPIRE', key, grace_ms)
end

-- The record first, the entry last: a step that breaks off leaves a message that is looked at again when its lease is
-- over.
local function settle(entry_id, id, generation, kind, delay_ms, attempt)
  local key = message_key(partition.prefix, id)
  local head = read_head(redis.call('GETRANGE', key, 0, HEAD_AND_LANE_BYTES - 1))
  if not head or head.generation ~= generation then
    return 'stale'
  end
  if head.state ~= ACTIVE then
    return head.state == CANCELED and 'canceled' or 'done'
  end
  look_at_place(partition, ring, parked, head.lane)

  head.claims = 0
  head.attempts = head.attempts + 1
  local word = 'settled'
  if kind == 'd' then
    finish(key, head, DELIVERED)
    log_event(log, 'D', id)
  else
    append_attempt(key, now_ms, attempt)
    log_event(log, 'E', id, struct.pack('>I4', head.attempts))
    if head.flags == CANCEL_REQUESTED then
      finish(key, head, CANCELED)
      log_event(log, 'X', id)
      word = 'canceled'
    elseif kind == 'r' then
      head.state = DELAYED
      head.due_ms = now_ms + delay_ms
      redis.call('ZADD', timers, head.due_ms, id)
      write_head(key, head)
      log_event(log, 'R', id, struct.pack('>I6', head.due_ms))
    else
      dead_letter(partition, dlq, log, key, id, head, dlq_retention_ms)
    end
  end
  redis.call('XACK', ready, group, entry_id)
  redis.call('XDEL', ready, entry_id)
  release_place(partition, ring, parked, head.lane, id)
  return word
end

local reply = {'ok'}
for at = first, #ARGV, 6 do
  local entry_id, id, generation, kind = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local settled, word = pcall(settle, entry_id, id, generation, kind, tonumber(ARGV[at + 4]), ARGV[at + 5])
  reply[#reply + 1] = settled and word or error_text(word)
end
admit(partition, ready, ring, parked, #reply + 8)
return reply

--[[
publish.lua: store messages; the due ones join their lanes, the others wait in the timers.

A message whose id exists already was stored by an earlier try of the same call. One with a digest is stored only if
no other message is on record for that digest; this decides, so of any number of callers exactly one is "stored".

KEYS
  1  meta    hash        description of the partition
  2  ready   stream      work stream
  3  timers  sorted set  due times
  4  ring    list        lanes with waiting messages
  5  log     stream      transitions
  6  dedup   stream      deduplication records in order of creation
ARGV
  1  version    int
  2  is_logged  0|1
  3+ messages   eight each: id, delay in ms, not before in unix ms or -1, lane, offset of the lane's host in the
                encoded message or 0, encoded message, body, "" or 16 bytes of digest and the window in ms
DERIVES  record, waiting list, admitted set and deduplication record of each message
RETURNS
  {"ok", word, ...}   one word per message: "stored", "duplicate <id of the first message>" or "error <text>"
  {"no_store"} | {"version", stored version}
COST  O(number of messages)
]]
--@include partition
--@include record
--@include log
--@include lanes
--@include store_message
--@include dedup
local meta, ready, timers, ring, dedup = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6]
local version, log, first = ARGV[1], ARGV[2] == '1' and KEYS[5], 3

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local earliest = earliest_timer(timers)
if log then
  redis.call('XLEN', log)
end

local function publish(id, delay_ms, not_before_ms, lane, lane_at, encoded, body, deduplication)
  local digest
  if #deduplication > 0 then
    digest = string.sub(deduplication, 1, DIGEST_BYTES)
    local first_id = read_deduplication(partition, digest)
    if first_id == id then
      return 'stored'
    end
    -- Its own message may be stored without being on record: a step that broke off between the two.
    if first_id and redis.call('STRLEN', message_key(partition.prefix, id)) == 0 then
      return 'duplicate ' .. first_id
    end
    redis.call('XLEN', dedup)
    digest = not first_id and digest
  end
  store_message(partition, ready, timers, ring, log, id, delay_ms, not_before_ms, lane, lane_at, encoded, body)
  if digest then
    -- Last: a message on record that was never stored would swallow all its repeats.
    write_deduplication(partition, dedup, digest, tonumber(string.sub(deduplication, DIGEST_BYTES + 1)), id)
  end
  return 'stored'
end

local reply = {'ok'}
for at = first, #ARGV, 8 do
  local id, delay_ms, not_before_ms = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local lane, lane_at, encoded, body = ARGV[at + 3], tonumber(ARGV[at + 4]), ARGV[at + 5], ARGV[at + 6]
  local done, word = pcall(publish, id, delay_ms, not_before_ms, lane, lane_at, encoded, body, ARGV[at + 7])
  reply[#reply + 1] = done and word or error_text(word)
end
ring_for_timers(partition, ready, timers, earliest)
return reply

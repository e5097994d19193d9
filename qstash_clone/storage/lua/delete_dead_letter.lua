--[[
delete_dead_letter.lua: take dead letters out of the queue. Their records stay for the log, if there is one.

KEYS
  1  meta  hash    description of the partition
  2  dlq   stream  dead letters
  3  log   stream  transitions
ARGV
  1  version                int
  2  is_logged              0|1
  3  finished_retention_ms  int     how long the records stay
  4+ entries                string  entry ids in the dlq
DERIVES  record of each message
RETURNS
  {"ok", word, ...}   one word per entry: "deleted", "not_found" or "error <text>"
  {"no_store"} | {"version", stored version}
COST  O(number of entries)
]]
--@include partition
--@include record
--@include log
--@include finish
local meta, dlq = KEYS[1], KEYS[2]
local version, log, retention_ms, first = ARGV[1], ARGV[2] == '1' and KEYS[3], tonumber(ARGV[3]), 4

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
redis.call('XLEN', KEYS[3])

local function delete(entry)
  local found = redis.call('XRANGE', dlq, entry, entry)[1]
  if not found then
    return 'not_found'
  end
  local id = found[2][2]
  local key = message_key(partition.prefix, id)
  local is_stored = redis.call('STRLEN', key) > 0
  redis.call('XDEL', dlq, entry)
  if is_stored then
    if log then
      retire_record(partition, log, key, id, 'Z', retention_ms)
    else
      redis.call('DEL', key)
    end
  end
  return 'deleted'
end

local reply = {'ok'}
for at = first, #ARGV do
  local done, word = pcall(delete, ARGV[at])
  reply[#reply + 1] = done and word or error_text(word)
end
count_finished(partition, meta)
return reply

--[[
publish.lua: store messages; the due ones join their lanes, the others wait in the timers.

A unit is one message, or several with one body (a fan-out) that are stored together or not at all. One whose first id
exists already was stored by an earlier try of the same call. One with a digest is stored only if no other is on record
for that digest; this decides, so of any number of callers exactly one is "stored".

KEYS
  1  meta   hash    description of the partition
  2  log    stream  transitions
  3  dedup  stream  deduplication records in order of creation
ARGV
  1  version    int
  2  is_logged  0|1
  3+ units      six each: number of messages, delay in ms, not before in unix ms or -1, body, limits for the flow-control
                key (12 bytes or "", see members.lua), repeats ("" or 16 bytes of digest, 6 bytes of window in ms, and
                what a repeat is told besides the first id); and behind them four per message: id, lane, offset of the
                lane's host in the encoded message or 0, encoded message
DERIVES  record, lanes, deduplication record and reservation of each message, timers, work stream
RETURNS
  {"ok", word, ...}   one word per unit: "stored", "duplicate <id of the first message><what its repeats are told>",
                      "reserved" (the digest is, for a message on another partition: nothing is decided) or "error <text>"
  {"no_store"} | {"version", stored version}
COST  O(number of messages)
]]
--@include partition
--@include record
--@include log
--@include routes
--@include limits
--@include lanes
--@include members
--@include store_message
--@include dedup
local meta, dedup = KEYS[1], KEYS[3]
local version, log, first = ARGV[1], ARGV[2] == '1' and KEYS[2], 3

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local UNIT_ARGUMENTS, MESSAGE_ARGUMENTS = 6, 4
if log then
  redis.call('XLEN', log)
end

local function read_unit(at, behind)
  local unit = {}
  for place = at + UNIT_ARGUMENTS, behind - 1, MESSAGE_ARGUMENTS do
    unit[#unit + 1] = {
      id = ARGV[place],
      lane = ARGV[place + 1],
      lane_at = tonumber(ARGV[place + 2]),
      encoded = ARGV[place + 3],
      delay_ms = tonumber(ARGV[at + 1]),
      not_before_ms = tonumber(ARGV[at + 2]),
      body = ARGV[at + 3],
      limits = ARGV[at + 4],
    }
  end
  return unit
end

local function publish(at, behind)
  local unit, repeats = read_unit(at, behind), ARGV[at + 5]
  local id, digest = unit[1].id, nil
  if #repeats > 0 then
    digest = string.sub(repeats, 1, DIGEST_BYTES)
    local first_id, _, told = read_deduplication(partition, digest)
    if first_id == id then
      return 'stored'
    end
    -- Its own message may be stored without being on record: a step that broke off between the two.
    if first_id and redis.call('STRLEN', message_key(partition.prefix, id)) == 0 then
      return 'duplicate ' .. first_id .. told
    end
    redis.call('XLEN', dedup)
    if not first_id and redis.call('EXISTS', reservation_key(partition.prefix, digest)) == 1
      and redis.call('STRLEN', message_key(partition.prefix, id)) == 0 then
      return 'reserved'
    end
    digest = not first_id and digest
  end
  for _, message in ipairs(unit) do
    look_at_message(partition, message)
    if #unit > 1 then
      message.look = nil
    end
  end
  for _, message in ipairs(unit) do
    store_message(partition, log, message)
  end
  if digest then
    -- Last: a message on record that was never stored would swallow all its repeats.
    write_deduplication(partition, dedup, digest, string.sub(repeats, DIGEST_BYTES + 1), id)
  end
  return 'stored'
end

local reply, at = {'ok'}, first
while at <= #ARGV do
  local behind = at + UNIT_ARGUMENTS + MESSAGE_ARGUMENTS * tonumber(ARGV[at])
  local done, word = pcall(publish, at, behind)
  reply[#reply + 1] = done and word or error_text(word)
  at = behind
end
end_of_storing(partition)
return reply

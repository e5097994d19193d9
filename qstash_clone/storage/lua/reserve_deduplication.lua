--[[
reserve_deduplication.lua: say which message is about to be the first with a digest, where that message is to be on
another partition.

Only one caller at a time gets a reservation. It counts for nobody until confirm_deduplication.lua has made it a record.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version    int
  2  digest     16 bytes
  3  id         bytes  of the message about to be stored
  4  replaces   bytes  the message of a reservation that led to nothing and is replaced, or ""
  5  keep_ms    int    a reservation is forgotten after this time
  6  told       bytes  what repeats are told besides the id
DERIVES  deduplication record, reservation
RETURNS
  {"reserved"}   also if an earlier try of the same call did it
  {"duplicate", id of the first message, what its repeats are told}
  {"pending", id of the message that has the reservation, ms since then, what its repeats are told}
  {"no_store"} | {"version", stored version}
COST  O(1)
]]
--@include partition
--@include dedup
local meta = KEYS[1]
local version, digest, id, replaces, keep_ms, told = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local first_id, _, first_told = read_deduplication(partition, digest)
if first_id then
  return {'duplicate', first_id, first_told}
end
local key = reservation_key(partition.prefix, digest)
local reservation = redis.call('GET', key)
if reservation then
  local reserved_id = string.sub(reservation, 1, MESSAGE_ID_BYTES)
  if reserved_id ~= id and reserved_id ~= replaces then
    local since_ms = struct.unpack('>I6', string.sub(reservation, MESSAGE_ID_BYTES + 1))
    return {'pending', reserved_id, partition.real_ms - since_ms,
      string.sub(reservation, MESSAGE_ID_BYTES + WINDOW_BYTES + 1)}
  end
end
redis.call('SET', key, id .. struct.pack('>I6', partition.real_ms) .. told, 'PX', keep_ms)
return {'reserved'}

--[[
confirm_deduplication.lua: the message of a reservation is stored: from now on it is the first with its digest.

KEYS
  1  meta   hash    description of the partition
  2  dedup  stream  deduplication records in order of creation
ARGV
  1  version  int
  2  digest   16 bytes
  3  id       bytes  of the message
  4  repeats  bytes  6 bytes of window in ms, and what a repeat is told besides the id
DERIVES  deduplication record, reservation
RETURNS
  {"confirmed"} (also if it was before, or the reservation is gone) | {"duplicate", id of another first message, what its
  repeats are told}
  {"no_store"} | {"version", stored version}
COST  O(1)
]]
--@include partition
--@include dedup
local meta, dedup = KEYS[1], KEYS[2]
local version, digest, id, repeats = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
redis.call('XLEN', dedup)
local first_id, _, told = read_deduplication(partition, digest)
if first_id and first_id ~= id then
  return {'duplicate', first_id, told}
end
if not first_id then
  -- Redis lets a script go on writing at its memory limit if its first write is one that frees. This one changes nothing.
  redis.call('XDEL', dedup, '0-0')
  write_deduplication(partition, dedup, digest, repeats, id)
end
redis.call('DEL', reservation_key(partition.prefix, digest))
return {'confirmed'}

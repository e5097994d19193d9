--[[
trim_deduplication.lua: drop deduplication records whose window is over, and the oldest ones that are too many.

KEYS
  1  meta   hash    description of the partition
  2  dedup  stream  deduplication records in order of creation
ARGV
  1  version      int
  2  limit        int  at most this many entries
  3  max_records  int  -1 for any number
DERIVES  deduplication record of each entry
RETURNS
  {"ok", entries dropped, records among them that still counted}
  {"no_store"} | {"version", stored version}
COST  O(limit)
]]
--@include partition
--@include dedup
local meta, dedup = KEYS[1], KEYS[2]
local version, limit, max_records = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end

local excess = max_records >= 0 and redis.call('XLEN', dedup) - max_records or 0
local dropped, shed = 0, 0
for _, entry in ipairs(redis.call('XRANGE', dedup, '-', '+', 'COUNT', limit)) do
  local digest, ends = string.sub(entry[2][2], 1, DIGEST_BYTES), string.sub(entry[2][2], DIGEST_BYTES + 1)
  local is_over = struct.unpack('>I6', ends) <= partition.now_ms
  if not is_over and dropped >= excess then
    break
  end
  local key = deduplication_key(partition.prefix, digest)
  local record = redis.call('GET', key)
  -- The record first: an entry without one is dropped in its turn.
  if record and string.sub(record, MESSAGE_ID_BYTES + 1, MESSAGE_ID_BYTES + WINDOW_BYTES) == ends then
    redis.call('DEL', key)
    shed = shed + (is_over and 0 or 1)
  end
  redis.call('XDEL', dedup, entry[1])
  dropped = dropped + 1
end
return {'ok', dropped, shed}

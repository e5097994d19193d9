--[[
move_clock.lua: set the clock of messages, unless another move came first, and wake a worker, which looks at the timers.

Given is where the clock is to be, not by how much it is moved: a repeated call changes nothing.

KEYS
  1  meta   hash    description of the partition
ARGV
  1  version    int
  2  revision   int     of this move: one above that of the move it was made on
  3  move       string  name of this move
  4  offset_ms  int     added to Redis's clock
  5  frozen_ms  int     the time at which the clock stands still, or -1 if it runs
  6  decides    0|1     this partition is the one that the others follow
DERIVES  ready stream
RETURNS
  {"ok", real ms, offset ms, frozen ms or -1, revision, move}   what is stored now: as given, or of another move
  {"no_store"} | {"version", stored version}
COST  O(1)
]]
--@include partition
local meta = KEYS[1]
local version, revision, move = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local offset_ms, frozen_ms, decides = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1'

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
redis.call('XLEN', partition.ready)

local function whole(number)
  return string.format('%.0f', number)
end

if tonumber(redis.call('HGET', meta, 'mr') or 0) < revision then
  -- What was asked for is a moment old, and the clock never goes back. But where it stands still all partitions have to
  -- stand at one time: what is dated later than another's present is shown only when that has come.
  if frozen_ms >= 0 then
    local least_ms = decides and partition.now_ms or 0
    redis.call('HSET', meta, 'mr', revision, 'mi', move, 'fz', whole(math.max(frozen_ms, least_ms)))
  else
    local least_ms = partition.now_ms - partition.real_ms
    redis.call('HSET', meta, 'mr', revision, 'mi', move, 'off', whole(math.max(offset_ms, least_ms)))
    redis.call('HDEL', meta, 'fz')
  end
  ring_doorbell(partition)
end
local fields = redis.call('HMGET', meta, 'off', 'fz', 'mr', 'mi')
return {'ok', partition.real_ms, tonumber(fields[1] or 0), tonumber(fields[2] or -1), tonumber(fields[3]), fields[4]}

--[[
expire.lua: retention: old log entries with the finished records they speak of, old dead letters, departed consumers,
flow-control keys that nobody uses.

The log is shortened from its old end only: while the oldest entry is past its age, or there are too many, or finished
records take more memory than they may. What waits and what is a dead letter may lose its entries, never its record.

KEYS
  1  meta     hash        description of the partition
  2  ready    stream      work stream
  3  log      stream      transitions
  4  dlq      stream      dead letters
  5  workers  sorted set  live workers
  6  flows    sorted set  flow-control keys and their last use
ARGV
  1  version             int
  2  group               string
  3  limit               int  at most this many entries of each kind
  4  log_retention_ms    int
  5  log_max_entries     int
  6  finished_max_bytes  int  of finished records; 0 is no limit
  7  grace_ms            int  a finished record stays at least this long: calls may be repeated, messages asked for
  8  dlq_retention_ms    int
  9  departed_ms         int  a consumer idle for this long with nothing pending is removed
  10 flow_idle_ms       int  a flow-control key without a message for this long is forgotten, unless somebody set it
DERIVES  record of each dead letter dropped, and of each message whose last entry is dropped, limits of idle keys
RETURNS
  {"ok", entries dropped, finished records dropped before their age}
  {"no_store"} | {"version", stored version}
COST  O(limit + consumers)
]]
--@include partition
--@include record
local meta, ready, log, dlq, workers, flows = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local version, group, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local log_retention_ms, log_max_entries, finished_max_bytes = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local grace_ms, dlq_retention_ms, departed_ms = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local flow_idle_ms = tonumber(ARGV[10])

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
redis.call('EXISTS', log, dlq, workers, flows)
-- Redis lets a script go on writing at its memory limit if its first write is one that frees. This one changes nothing.
redis.call('ZREM', flows, '')

local LAST_ENTRY = {[68] = true, [88] = true, [90] = true} -- D, X, Z: see finish.lua
local ID_BYTES = 12

-- The record of a message whose last entry goes. age_ms: since that entry was written.
local function drop_record(id, age_ms)
  local key = message_key(partition.prefix, id)
  if partition.is_moved then
    -- Nobody knows how long ago that really was, and calls are repeated in real time.
    age_ms = 0
  end
  if age_ms < grace_ms then
    redis.call('PEXPIRE', key, grace_ms - age_ms)
  else
    redis.call('DEL', key)
  end
end

local function shorten_log()
  local length = redis.call('XLEN', log)
  local finished_bytes = tonumber(redis.call('HGET', meta, 'fb') or 0)
  if length == 0 and finished_bytes ~= 0 then
    -- A call that broke off had left it behind.
    redis.call('HDEL', meta, 'fb')
  end
  local oldest_ms = partition.now_ms - log_retention_ms
  local dropped, shed, freed_bytes, first_kept = 0, 0, 0, nil
  for _, entry in ipairs(redis.call('XRANGE', log, '-', '+', 'COUNT', limit)) do
    local dash = string.find(entry[1], '-', 1, true)
    local entry_ms = tonumber(string.sub(entry[1], 1, dash - 1))
    local is_old = entry_ms < oldest_ms
    local is_heavy = finished_max_bytes > 0 and finished_bytes - freed_bytes > finished_max_bytes
    if not (is_old or is_heavy or length - dropped > log_max_entries) then
      first_kept = entry[1]
      break
    end
    local value = entry[2][2]
    if LAST_ENTRY[string.byte(value)] then
      drop_record(string.sub(value, 2, ID_BYTES + 1), partition.now_ms - entry_ms)
      freed_bytes = freed_bytes + (#value > ID_BYTES + 1 and struct.unpack('>I4', value, ID_BYTES + 2) or 0)
      shed = shed + (is_old and 0 or 1)
    end
    dropped = dropped + 1
    first_kept = string.sub(entry[1], 1, dash) .. string.format('%.0f', tonumber(string.sub(entry[1], dash + 1)) + 1)
  end
  if dropped > 0 then
    redis.call('XTRIM', log, 'MINID', first_kept)
  end
  if freed_bytes > 0 then
    redis.call('HINCRBY', meta, 'fb', -freed_bytes)
  end
  return dropped, shed
end

local dropped, shed = shorten_log()

local oldest_dead = string.format('(%.0f-0', math.max(0, partition.now_ms - dlq_retention_ms))
for _, entry in ipairs(redis.call('XRANGE', dlq, '-', oldest_dead, 'COUNT', limit)) do
  redis.call('DEL', message_key(partition.prefix, entry[2][2]))
  redis.call('XDEL', dlq, entry[1])
  dropped = dropped + 1
end

for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', ready, group)) do
  local consumer = {}
  for at = 1, #fields, 2 do
    consumer[fields[at]] = fields[at + 1]
  end
  if consumer.pending == 0 and consumer.idle > departed_ms and not redis.call('ZSCORE', workers, consumer.name) then
    redis.call('XGROUP', 'DELCONSUMER', ready, group, consumer.name)
    dropped = dropped + 1
  end
end

-- A key stays while it holds anything, while somebody has set it, and while its last window counts.
local function is_in_use(lane)
  local fields = redis.call('HMGET', partition.prefix .. 'c:' .. lane, 'n', 'x', 'pp', 'pr', 'ws', 'w')
  if (tonumber(fields[1]) or 0) > 0 or fields[2] == '1' or fields[3] == '1' or fields[4] == '1' then
    return true
  end
  return (tonumber(fields[5]) or 0) + (tonumber(fields[6]) or 0) > partition.now_ms
    or redis.call('EXISTS', partition.prefix .. 'l:' .. lane, partition.prefix .. 'a:' .. lane) > 0
end

for _, key in ipairs(redis.call('ZRANGEBYSCORE', flows, '-inf', partition.now_ms - flow_idle_ms, 'LIMIT', 0, limit)) do
  if is_in_use('f:' .. key) then
    redis.call('ZADD', flows, partition.now_ms, key)
  else
    redis.call('DEL', partition.prefix .. 'c:f:' .. key)
    redis.call('ZREM', flows, key)
    dropped = dropped + 1
  end
end
return {'ok', dropped, shed}

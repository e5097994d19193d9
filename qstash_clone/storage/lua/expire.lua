--[[
expire.lua: retention: old log entries, old dead letters, consumers of workers that are gone.

KEYS
  1  meta     hash        description of the partition
  2  ready    stream      work stream
  3  log      stream      transitions
  4  dlq      stream      dead letters
  5  workers  sorted set  live workers
ARGV
  1  version           int
  2  group             string
  3  limit             int  about this many entries of each kind
  4  log_retention_ms  int
  5  log_max_entries   int
  6  dlq_retention_ms  int
  7  departed_ms       int  a consumer idle for this long with nothing pending is removed
DERIVES  record of each dead letter dropped
RETURNS
  {"ok", entries dropped}
  {"no_store"} | {"version", stored version}
COST  O(limit + consumers)
]]
--@include partition
--@include record
local meta, ready, log, dlq, workers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local version, group, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local log_retention_ms, log_max_entries, dlq_retention_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local departed_ms = tonumber(ARGV[7])

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local function cutoff(retention_ms)
  return string.format('%.0f-0', math.max(0, partition.now_ms - retention_ms))
end

redis.call('EXISTS', log, dlq, workers)
local dropped = redis.call('XTRIM', log, 'MINID', '~', cutoff(log_retention_ms), 'LIMIT', limit)
dropped = dropped + redis.call('XTRIM', log, 'MAXLEN', '~', log_max_entries, 'LIMIT', limit)

for _, entry in ipairs(redis.call('XRANGE', dlq, '-', '(' .. cutoff(dlq_retention_ms), 'COUNT', limit)) do
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
return {'ok', dropped}

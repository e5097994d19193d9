--[[
locate.lua: a message and the state of its lane, of one moment.

KEYS
  1  meta     hash        description of the partition
  2  ready    stream      work stream
  3  parked   set         lanes that hold all they may
  4  workers  sorted set  live workers
ARGV
  1  version  int
  2  id       bytes
DERIVES  record, waiting list and admitted set of the message
RETURNS
  {"ok", now ms, record, is admitted 0|1, waiting, admitted, is parked 0|1, free places, workers, capacity}
  {"not_found"}
  {"no_store"} | {"version", stored version}
COST  O(size of the message)
]]
--@include partition
--@include record
--@include routes
--@include limits
--@include lanes
local meta, parked, workers = KEYS[1], KEYS[3], KEYS[4]
local version, id = ARGV[1], ARGV[2]

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
redis.call('XLEN', KEYS[2])
local record = redis.call('GET', message_key(partition.prefix, id))
local head = record and read_head(record)
if not head then
  return {'not_found'}
end
local places = partition.prefix .. 'a:' .. head.lane
return {
  'ok',
  partition.now_ms,
  record,
  redis.call('SISMEMBER', places, id),
  redis.call('LLEN', partition.prefix .. 'l:' .. head.lane),
  redis.call('SCARD', places),
  redis.call('SISMEMBER', parked, head.lane),
  math.max(0, free_places(partition)),
  redis.call('ZCARD', workers),
  partition.capacity,
}

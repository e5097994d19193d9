--[[
locate.lua: a message and the state of the lane that it waits in or has a place of, of one moment.

KEYS
  1  meta     hash        description of the partition
  2  ready    stream      work stream
  3  parked   set         lanes that hold all they may
  4  workers  sorted set  live workers
ARGV
  1  version  int
  2  id       bytes
DERIVES  record of the message; limits, slots, waiting lists and admitted sets of its lanes
RETURNS
  {"ok", now ms, record, is admitted 0|1, waiting, admitted, is parked 0|1, free places, workers, capacity, lane,
   held up by "paused", "slots", "parallelism", "rate" or "", end of the rate's window in ms or 0}
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
local route = parse_route(head.lane)
local is_admitted = redis.call('SISMEMBER', partition.prefix .. 'a:' .. route.place, id)

-- The lane where it waits, what holds that up, and until when if that is known.
local function find_lane()
  if is_admitted == 1 then
    return route.place, ''
  end
  if route.queue then
    local limits = read_queue(partition, route.queue)
    local slots = partition.prefix .. 's:' .. route.queue
    if limits.is_paused then
      return route.queue, 'paused'
    end
    if redis.call('SISMEMBER', slots, id) == 0 then
      return route.queue, redis.call('SCARD', slots) >= limits.parallelism and 'slots' or ''
    end
  end
  if not route.flow then
    return route.place, ''
  end
  local limits = read_flow(partition, route.flow)
  if limits.is_paused then
    return route.flow, 'paused'
  end
  local room, admitted = flow_room(partition, route.flow, limits)
  if room > 0 then
    return route.flow, ''
  end
  if limits.parallelism > 0 and admitted >= limits.parallelism then
    return route.flow, 'parallelism'
  end
  return route.flow, 'rate', limits.window_ends_ms
end

local lane, held_by, until_ms = find_lane()
return {
  'ok',
  partition.now_ms,
  record,
  is_admitted,
  redis.call('LLEN', partition.prefix .. 'l:' .. lane),
  redis.call('SCARD', partition.prefix .. 'a:' .. lane),
  redis.call('SISMEMBER', parked, lane),
  math.max(0, free_places(partition)),
  redis.call('ZCARD', workers),
  partition.capacity,
  lane,
  held_by,
  until_ms or 0,
}

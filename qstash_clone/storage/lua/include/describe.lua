--[[
describe.lua: queues and flow-control keys as callers see them. Reads only.
]]
-- {parallelism, is paused 0|1, created ms, updated ms, members that are not final}; nil if there is none, or it was
-- deleted.
local function describe_queue(partition, queue)
  local fields = redis.call('HMGET', limits_key(partition, queue), 'p', 'x', 'ct', 'ut', 'n', 'del')
  if not fields[3] or fields[6] == '1' then
    return nil
  end
  return {
    tonumber(fields[1]) or 1,
    fields[2] == '1' and 1 or 0,
    tonumber(fields[3]),
    tonumber(fields[4]) or tonumber(fields[3]),
    math.max(0, tonumber(fields[5]) or 0),
  }
end

-- {waiting, parallelism, in flight, rate, counted in the window, period in ms, start of the window in ms, is paused 0|1,
-- is parallelism pinned 0|1, is rate pinned 0|1}; 0 is no limit, and no window. nil if there is no such key.
local function describe_flow(partition, flow)
  local prefix, limits = partition.prefix, limits_key(partition, flow)
  if redis.call('EXISTS', limits) == 0 then
    return nil
  end
  local fields = redis.call('HMGET', limits, 'p', 'r', 'w', 'ws', 'wc', 'x', 'pp', 'pr', 'z')
  local rate, period_ms, started_ms = tonumber(fields[2]) or 0, tonumber(fields[3]) or 0, tonumber(fields[4]) or 0
  local age_ms = partition.now_ms - started_ms
  local is_open = rate > 0 and started_ms > 0 and age_ms >= 0 and age_ms < period_ms
  return {
    math.max(0, redis.call('LLEN', prefix .. 'l:' .. flow) - (tonumber(fields[9]) or 0)),
    tonumber(fields[1]) or 0,
    redis.call('SCARD', prefix .. 'i:' .. flow),
    rate,
    is_open and tonumber(fields[5]) or 0,
    period_ms,
    is_open and started_ms or 0,
    fields[6] == '1' and 1 or 0,
    fields[7] == '1' and 1 or 0,
    fields[8] == '1' and 1 or 0,
  }
end

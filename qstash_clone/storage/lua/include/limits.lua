--[[
limits.lua: what queues and flow-control keys allow, and how much of it is left. Reads only.
]]
local function limits_key(partition, lane)
  return partition.prefix .. 'c:' .. lane
end

local function read_queue(partition, queue)
  local fields = redis.call('HMGET', limits_key(partition, queue), 'p', 'x', 'dt', 'b')
  return {
    parallelism = tonumber(fields[1]) or 1,
    is_paused = fields[2] == '1',
    deleted_ms = tonumber(fields[3]), -- members from before this are cancelled when their turn comes
    last_put_back = fields[4], -- id of the last one that claim has put back at the head of a list
  }
end

-- Nothing is claimed in the last moments of a window, and nothing begins in the last half of them: it would arrive in
-- the next one.
local MARGIN_MS = 20
local MARGIN_SHARE = 0.02
local function window_margin_ms(period_ms)
  return math.min(MARGIN_MS, period_ms * MARGIN_SHARE)
end

local function read_flow(partition, flow)
  local fields = redis.call('HMGET', limits_key(partition, flow), 'p', 'r', 'w', 'x', 'ws', 'wc', 'b')
  local limits = {
    parallelism = tonumber(fields[1]) or 0,
    rate = tonumber(fields[2]) or 0,
    period_ms = tonumber(fields[3]) or 1000,
    is_paused = fields[4] == '1',
    counted = 0, -- attempts in the current window
    last_put_back = fields[7],
  }
  local started_ms = tonumber(fields[5])
  if limits.rate > 0 and started_ms and started_ms <= partition.now_ms then
    local ends_ms = started_ms + limits.period_ms
    if partition.now_ms < ends_ms then
      limits.window_ends_ms = ends_ms
      limits.counted = tonumber(fields[6]) or 0
      if partition.now_ms >= ends_ms - window_margin_ms(limits.period_ms) then
        limits.counted = math.max(limits.counted, limits.rate)
      end
    end
  end
  return limits
end

-- How many more messages of a key may be admitted, and how many are. What is admitted will be counted by the window
-- in which it starts, so until then it holds its share of the rate.
local function flow_room(partition, flow, limits)
  local admitted = redis.call('SCARD', partition.prefix .. 'a:' .. flow)
  if limits.is_paused then
    return 0, admitted
  end
  local room = math.huge
  if limits.parallelism > 0 then
    room = limits.parallelism - admitted
  end
  if limits.rate > 0 then
    local in_flight = redis.call('SCARD', partition.prefix .. 'i:' .. flow)
    room = math.min(room, limits.rate - limits.counted - (admitted - in_flight))
  end
  return room, admitted
end

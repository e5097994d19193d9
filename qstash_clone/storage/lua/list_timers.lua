--[[
list_timers.lua: the timers behind a given one, earliest first. The given one need not exist any more.

KEYS
  1  meta    hash        description of the partition
  2  timers  sorted set  due times
ARGV
  1  version  int
  2  due_ms   int    of the given timer
  3  id       bytes  of the given timer; "" for none: from the first timer at `due_ms` on
  4  limit    int    at most this many
RETURNS
  {"ok", id, due ms, ...}
  {"no_store"} | {"version", stored version}
COST  O(log timers * log timers due at one moment + limit)
]]
--@include partition
local meta, timers = KEYS[1], KEYS[2]
local version, due_ms, id, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local _, refusal = open_partition(meta, version)
if refusal then
  return refusal
end

-- Lua's own comparison follows the locale of Redis; timers of one moment are in the order of their bytes.
local function comes_first(one, other)
  for at = 1, math.max(#one, #other) do
    local a, b = string.byte(one, at) or -1, string.byte(other, at) or -1
    if a ~= b then
      return a < b
    end
  end
  return false
end

local rank = id ~= '' and redis.call('ZRANK', timers, id)
if rank and tonumber(redis.call('ZSCORE', timers, id)) == tonumber(due_ms) then
  rank = rank + 1
else
  rank = redis.call('ZCOUNT', timers, '-inf', '(' .. due_ms)
  local among = redis.call('ZCOUNT', timers, due_ms, due_ms)
  while id ~= '' and among > 0 do
    local half = math.floor(among / 2)
    if comes_first(id, redis.call('ZRANGE', timers, rank + half, rank + half)[1]) then
      among = half
    else
      rank, among = rank + half + 1, among - half - 1
    end
  end
end
local reply = redis.call('ZRANGE', timers, rank, rank + limit - 1, 'WITHSCORES')
table.insert(reply, 1, 'ok')
return reply

--[[
release.lua: hand unfinished claims back to the other workers, without using up an attempt.

The generation moves on, so that a late settlement of the old claim is stale.

KEYS
  1  meta   hash    description of the partition
  2  ready  stream  work stream
ARGV
  1  version  int
  2  group    string
  3+ three per claim: entry id, message id, generation
DERIVES  record and lanes of each message
RETURNS
  {"ok", word, ...}   one word per claim: "released", "stale" or "error <text>"
  {"no_store"} | {"version", stored version}
COST  O(number of claims)
]]
--@include partition
--@include record
--@include routes
local meta, ready = KEYS[1], KEYS[2]
local version, group, first = ARGV[1], ARGV[2], 3

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end

redis.call('XLEN', ready)
write_when_full(ready, group)

local function release(entry_id, id, generation)
  local key = message_key(partition.prefix, id)
  local head = read_head(redis.call('GETRANGE', key, 0, HEAD_AND_LANE_BYTES - 1))
  if not head or head.generation ~= generation or head.state ~= ACTIVE then
    return 'stale'
  end
  local flow = parse_route(head.lane).flow
  if flow then
    redis.call('SCARD', partition.prefix .. 'a:' .. flow)
    redis.call('SCARD', partition.prefix .. 'i:' .. flow)
  end
  redis.call('XADD', ready, '*', 'i', id)
  if flow then
    -- It keeps its place, or has one again if its key was reset meanwhile.
    redis.call('SADD', partition.prefix .. 'a:' .. flow, id)
    redis.call('SREM', partition.prefix .. 'i:' .. flow, id)
  end
  head.generation = (head.generation + 1) % GENERATIONS
  head.claims = head.claims - 1
  head.state = QUEUED
  write_head(key, head)
  redis.call('XACK', ready, group, entry_id)
  redis.call('XDEL', ready, entry_id)
  return 'released'
end

local reply = {'ok'}
for at = first, #ARGV, 3 do
  local released, word = pcall(release, ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]))
  reply[#reply + 1] = released and word or error_text(word)
end
return reply

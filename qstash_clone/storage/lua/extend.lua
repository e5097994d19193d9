--[[
extend.lua: renew the leases of generations that are still current; name the ones that were lost.

KEYS
  1  meta   hash    description of the partition
  2  ready  stream  work stream
ARGV
  1  version   int
  2  group     string
  3  consumer  string  the worker asking
  4+ three per claim: entry id, message id, generation
DERIVES  record of each message
RETURNS
  {"ok", position, ...}   positions from 1 of the claims that were lost; none if all were renewed
  {"no_store"} | {"version", stored version}
COST  O(number of claims), at most 1,000
]]
--@include partition
--@include record
local meta, ready = KEYS[1], KEYS[2]
local version, group, consumer, first = ARGV[1], ARGV[2], ARGV[3], 4

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end

local function is_current(id, generation)
  local head = read_head(redis.call('GETRANGE', message_key(partition.prefix, id), 0, HEAD_BYTES - 1))
  return head and head.state == ACTIVE and head.generation == generation
end

local current, position_of = {}, {}
local lost = {}
for at = first, #ARGV, 3 do
  local position = (at - first) / 3 + 1
  local entry_id = ARGV[at]
  local is_known, is_ours = pcall(is_current, ARGV[at + 1], tonumber(ARGV[at + 2]))
  if is_ours and is_known then
    current[#current + 1] = entry_id
    position_of[entry_id] = position
  elseif is_known then
    lost[position] = true
  end
  -- Of one that cannot be read nobody can say whose it is: its lease runs on, and the next renewal may tell.
end

-- XCLAIM asks nobody for leave: only entries whose generation was checked above are passed to it.
if #current > 0 then
  local command = {'XCLAIM', ready, group, consumer, 0}
  for _, entry_id in ipairs(current) do
    command[#command + 1] = entry_id
  end
  command[#command + 1] = 'JUSTID'
  local renewed = {}
  for _, entry_id in ipairs(redis.call(unpack(command))) do
    renewed[entry_id] = true
  end
  for _, entry_id in ipairs(current) do
    if not renewed[entry_id] then
      lost[position_of[entry_id]] = true
    end
  end
end

local reply = {'ok'}
for position = 1, (#ARGV - first + 1) / 3 do
  if lost[position] then
    reply[#reply + 1] = position
  end
end
return reply

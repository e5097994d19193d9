--[[
save_consumer_group.lua: replace the state of a consumer group if it is still the one that was read.

KEYS
  1  meta    hash        description of the partition
  2  group   string      its state: 8 bytes of revision, 8 bytes that name who wrote it, and what was encoded
  3  groups  sorted set  names of groups and when their states end
  4  live    sorted set  names of groups with instances and when the last of these is closed
ARGV
  1  version   int
  2  name      string
  3  expected  int      revision that was read; 0 for no group
  4  writer    8 bytes  names this call, so that a repeated one finds its own work
  5  encoded   bytes
  6  keep_ms   int      for how long the state stays
  7  live_ms   int      for how long it has instances if nothing is heard of them; 0 for none
RETURNS
  {"ok"}
  {"changed"}   it is another one by now; nothing was changed
  {"no_store"} | {"version", stored version}
COST  O(1)
]]
--@include partition
local meta, group, groups, live = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local version, name, expected, writer, encoded, keep_ms, live_ms =
  ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local head, revision = redis.call('GETRANGE', group, 0, 15), 0
redis.call('ZCARD', groups)
local live_pttl = redis.call('PTTL', live)
redis.call('ZCARD', live)
if head ~= '' then
  revision = struct.unpack('>I8', head)
  if revision == expected + 1 and string.sub(head, 9) == writer then
    return {'ok'}
  end
end
if revision ~= expected then
  return {'changed'}
end
if head ~= '' then
  -- A write of the kind that frees memory comes first (no group is called ''): then Redis lets those behind it pass at
  -- its memory limit, and a group that is there reads on. A new one has to wait.
  redis.call('ZREM', live, '')
end
redis.call('SET', group, struct.pack('>I8', expected + 1) .. writer .. encoded, 'PX', keep_ms)
redis.call('ZADD', groups, partition.real_ms + keep_ms, name)
if live_ms > 0 then
  redis.call('ZADD', live, partition.real_ms + live_ms, name)
  if live_pttl < live_ms then
    redis.call('PEXPIRE', live, live_ms)
  end
else
  redis.call('ZREM', live, name)
end
for _, index in ipairs({groups, live}) do
  for _, ended in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', partition.real_ms, 'LIMIT', 0, 10)) do
    redis.call('ZREM', index, ended)
  end
end
return {'ok'}

--[[
schedule.lua: the record of a schedule, see docs/reference/redis-keys.md.

offset  0 format | 1 flags | 2 revision | 8 next fire ms, 0 for none | 14 instant that fired last, 0 for none
       20 length of ids | 23 length of error | 25 created ms | 31 length of definition | 34 length of body
       38 definition, body, ids, error

The ids are those of the messages that the last firing published. They and the error change with every firing; what
stood there before is overwritten, and what may be left behind them means nothing.
]]
local SCHEDULE_HEAD = '>BBI6I6I6I3I2I6I3I4'
local SCHEDULE_HEAD_BYTES = 38
local SCHEDULE_FORMAT = 1
local PAUSED = 1

local function schedule_key(partition, id)
  return partition.prefix .. 'scd:' .. id
end

-- Every change of a schedule gets a number that none had before, whatever its id.
local function next_revision(meta)
  return redis.call('HINCRBY', meta, 'sr', 1)
end

local function new_schedule_head(flags, revision, next_ms, created_ms, definition_bytes, body_bytes)
  return struct.pack(SCHEDULE_HEAD, SCHEDULE_FORMAT, flags, revision, next_ms, 0, 0, 0, created_ms, definition_bytes,
    body_bytes)
end

-- nil for a schedule that is not there. One of another format belongs to a later release, which is to find it untouched.
local function read_schedule_head(key)
  local bytes = redis.call('GETRANGE', key, 0, SCHEDULE_HEAD_BYTES - 1)
  if bytes == '' then
    return nil
  end
  if #bytes < SCHEDULE_HEAD_BYTES or string.byte(bytes) ~= SCHEDULE_FORMAT then
    error('the schedule has a format that this release cannot read')
  end
  local head = {}
  local _
  _, head.flags, head.revision, head.next_ms, head.last_ms, head.ids_bytes, head.error_bytes, head.created_ms,
    head.definition_bytes, head.body_bytes = struct.unpack(SCHEDULE_HEAD, bytes)
  head.body_at = SCHEDULE_HEAD_BYTES + head.definition_bytes
  head.ids_at = head.body_at + head.body_bytes
  return head
end

-- Everything that changes in the head, in one write.
local function write_schedule_head(key, head)
  redis.call('SETRANGE', key, 1,
    struct.pack('>BI6I6I6I3I2', head.flags, head.revision, head.next_ms, head.last_ms, head.ids_bytes,
      head.error_bytes))
end

-- The caller has computed `next_ms` as the first instant after `counted_from_ms`; is it the first after this moment?
local function is_next(partition, counted_from_ms, next_ms)
  return counted_from_ms <= partition.now_ms and (next_ms == 0 or partition.now_ms < next_ms)
end

-- Puts a schedule where the workers look. They sleep until the earliest fire time they know of.
local function await_instant(partition, schedules, id, next_ms)
  local earliest = redis.call('ZRANGE', schedules, 0, 0, 'WITHSCORES')[2]
  redis.call('ZADD', schedules, next_ms, id)
  if not earliest or next_ms < tonumber(earliest) then
    ring_doorbell(partition)
  end
end

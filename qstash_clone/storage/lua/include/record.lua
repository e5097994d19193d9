--[[
record.lua: the fixed head of a message record, see docs/reference/redis-keys.md.

offset  0 format | 1 state | 2 flags | 3 claims | 4 generation | 6 attempts that ended | 8 due ms | 14 created ms
       20 not before ms | 26 place of the lane | 27 length of lane | 29 length of meta | 32 length of body
       36 lane, meta, body, attempts

The lane of a plain destination is "h:" and its host, which stands in the destination already: then its place is the
offset of the host in meta, and nothing is stored for it. Place 0: the lane stands between head and meta.
]]
local HEAD = '>BBBBI2I2I6I6I6BI2I3I4'
local HEAD_BYTES = 36
local FORMAT = 1
local CANCEL_REQUESTED = 1
local DELAYED, QUEUED, ACTIVE = 116, 113, 97 -- t, q, a
local DELIVERED, FAILED, CANCELED = 100, 102, 99 -- d, f, c
-- Enough for the head and the longest lane; longer lanes are refused by the caller.
local HEAD_AND_LANE_BYTES = HEAD_BYTES + 600
local GENERATIONS = 65536

local function message_key(prefix, id)
  return prefix .. 'm' .. id
end

local function new_head(state, due_ms, created_ms, not_before_ms, lane_at, lane_bytes, meta_bytes, body_bytes)
  return struct.pack(HEAD, FORMAT, state, 0, 0, 0, 0, due_ms, created_ms, not_before_ms, lane_at, lane_bytes,
    meta_bytes, body_bytes)
end

-- bytes: at least HEAD_AND_LANE_BYTES of a record. nil for a record that is not there. One of another format belongs to
-- a later release, which is to find it untouched.
local function read_head(bytes)
  if bytes == '' then
    return nil
  end
  if #bytes < HEAD_BYTES or string.byte(bytes, 1) ~= FORMAT then
    error('a record has a format that this release cannot read')
  end
  local head = {}
  local _, lane_at, lane_bytes
  _, head.state, head.flags, head.claims, head.generation, head.attempts, head.due_ms, head.created_ms,
    head.not_before_ms, lane_at, lane_bytes, head.meta_bytes, head.body_bytes = struct.unpack(HEAD, bytes)
  if lane_at == 0 then
    head.lane = string.sub(bytes, HEAD_BYTES + 1, HEAD_BYTES + lane_bytes)
    head.fixed_bytes = HEAD_BYTES + lane_bytes + head.meta_bytes
  else
    head.lane = 'h:' .. string.sub(bytes, HEAD_BYTES + lane_at + 1, HEAD_BYTES + lane_at + lane_bytes)
    head.fixed_bytes = HEAD_BYTES + head.meta_bytes
  end
  head.lane_at, head.lane_bytes = lane_at, lane_bytes
  head.total_bytes = head.fixed_bytes + head.body_bytes
  return head
end

-- Everything that changes in a record, in one write.
local function write_head(key, head)
  redis.call('SETRANGE', key, 1,
    struct.pack('>BBBI2I2I6', head.state, head.flags, head.claims, head.generation, head.attempts, head.due_ms))
end

local REWRITE_BYTES = 16384

-- attempt: an encoded AttemptRecord, kept behind the record.
local function append_attempt(key, now_ms, attempt)
  if attempt == '' then
    return
  end
  local added = struct.pack('>I6I4', now_ms, #attempt) .. attempt
  -- APPEND makes Redis reserve as much again for further growth. Writing a small record anew costs less than that.
  if redis.call('STRLEN', key) <= REWRITE_BYTES then
    redis.call('SET', key, redis.call('GET', key) .. added)
  else
    redis.call('APPEND', key, added)
  end
end

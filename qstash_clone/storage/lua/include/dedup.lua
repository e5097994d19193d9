--[[
dedup.lua: which message was the first with a certain digest, and until when that counts.

record  the first message's id, 12 bytes | end of the window in ms, 6 bytes | what repeats of a fan-out are told
stream  per record, in order of creation: digest, 16 bytes | end of the window in ms, 6 bytes

The stream is for whoever drops the oldest records. A record that was cleared, or replaced after its window, has another
end than the entry.
]]
local DIGEST_BYTES = 16
local MESSAGE_ID_BYTES = 12
local WINDOW_BYTES = 6

local function deduplication_key(prefix, digest)
  return prefix .. 'd' .. digest
end

-- id of the message about to be the first, 12 bytes | unix ms of the reservation, 6 bytes | what repeats will be told
local function reservation_key(prefix, digest)
  return prefix .. 'h' .. digest
end

-- The first message's id, the end of the window, and what repeats are told; nil if there is none, or its window is
-- over.
local function read_deduplication(partition, digest)
  local record = redis.call('GET', deduplication_key(partition.prefix, digest))
  local ends_ms = record and struct.unpack('>I6', string.sub(record, MESSAGE_ID_BYTES + 1))
  if ends_ms and ends_ms > partition.now_ms then
    return string.sub(record, 1, MESSAGE_ID_BYTES), ends_ms, string.sub(record, MESSAGE_ID_BYTES + WINDOW_BYTES + 1)
  end
  return nil
end

-- repeats: the window in ms, 6 bytes, and what repeats are told.
local function write_deduplication(partition, dedup, digest, repeats, id)
  local window_ms = struct.unpack('>I6', repeats)
  local ends = struct.pack('>I6', partition.now_ms + window_ms)
  local told = string.sub(repeats, WINDOW_BYTES + 1)
  redis.call('SET', deduplication_key(partition.prefix, digest), id .. ends .. told, 'PX', window_ms)
  redis.call('XADD', dedup, '*', 'd', digest .. ends)
end

--[[
read_records.lua: records of logs of topics, each from an offset on, and the bounds of each log.

Each log gets an equal share first; what is left of the limits then goes to the logs in the order given.

KEYS
  1  meta  hash  description of the partition
ARGV
  1  version      int
  2  max_records  int  of all logs together
  3  max_bytes    int  likewise; but one record at least, if there is any
  4+ wanted       four each: topic, number of its partition, generation of the topic, offset
DERIVES  state and stream of each log
RETURNS
  {"ok", log, ...}   one per log wanted: {first offset that exists, next offset, offset of the first record, {record, ...}},
                     {} if the topic was deleted, or {"error <text>"}
  {"no_store"} | {"version", stored version}
COST  O(logs + max_records), and the bytes read: at most max_bytes, and ten records more for each log
]]
--@include partition
--@include topic
local meta = KEYS[1]
local version, records_left, bytes_left, first = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), 4

local partition, refusal = open_partition(meta, version)
if refusal then
  return refusal
end
local WANTED_ARGUMENTS = 4
local is_first = true

-- Reads on in a log, within these limits and those of all.
local function read_on(log, records, bytes)
  records, bytes = math.min(records, records_left), math.min(bytes, bytes_left)
  while records > 0 and log.at < log.behind and (bytes > 0 or is_first) do
    for _, entry in ipairs(next_entries(log, log.at, records, bytes)) do
      local record = entry[2][2]
      if #record > bytes and not is_first then
        return
      end
      is_first = false
      log.records[#log.records + 1] = record
      log.at = log.at + 1
      records, bytes = records - 1, bytes - #record
      records_left, bytes_left = records_left - 1, bytes_left - #record
    end
  end
end

local logs, reply = {}, {'ok'}
for at = first, #ARGV, WANTED_ARGUMENTS do
  local done, log = pcall(open_topic_log, partition.prefix, ARGV[at], ARGV[at + 1], ARGV[at + 2])
  if not done then
    log = {error_text(log)}
  elseif log then
    log.from = math.max(log.start, math.min(tonumber(ARGV[at + 3]), log.behind))
    log.at, log.records = log.from, {}
    logs[#logs + 1] = log
  end
  reply[#reply + 1] = log or {}
end
local share, share_bytes = math.ceil(records_left / math.max(1, #logs)), bytes_left / math.max(1, #logs)
for _, log in ipairs(logs) do
  read_on(log, share, share_bytes)
end
for _, log in ipairs(logs) do
  read_on(log, records_left, bytes_left)
end
for place, log in ipairs(reply) do
  if place > 1 and log.behind then
    reply[place] = {log.start, log.behind, log.from, log.records}
  end
end
return reply

--[[
dead_letter.lua: a message ends undelivered and stays for inspection.
]]
local function dead_letter(partition, dlq, log, key, id, head, retention_ms)
  redis.call('XADD', dlq, '*', 'i', id)
  head.state = FAILED
  head.due_ms = partition.now_ms
  write_head(key, head)
  redis.call('PEXPIRE', key, retention_ms)
  log_event(log, 'F', id)
end

--[[
log.lua: one compact entry per transition: a letter, the message's id, details.

C created, A active, D delivered, F failed, Q cancel requested, X canceled: no details.
E error: attempt, 4 bytes. R retry: due time in ms, 6 bytes.
]]
local function log_event(log, letter, id, details)
  redis.call('XADD', log, '*', 'e', letter .. id .. (details or ''))
end

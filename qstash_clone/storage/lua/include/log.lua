--[[
log.lua: one compact entry per transition: a letter, the message's id, details. No entry where `log` is false.

C created, A active, F failed, Q cancel requested: no details.
E error: attempt, 4 bytes. R retry: due time in ms, 6 bytes.
D delivered, X canceled: what the finished message counts in bytes, 4 bytes, see finish.lua.
Z is no transition: a dead letter was taken out of the queue; 4 bytes as for D and X. Readers pass over it.
]]
local function log_event(partition, log, letter, id, details)
  if log then
    append_dated(partition, log, 'e', letter .. id .. (details or ''))
  end
end

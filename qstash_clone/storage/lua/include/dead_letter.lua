--[[
dead_letter.lua: where a message that ends undelivered stays for inspection.
]]
-- The id by which callers know it: the entry's, with the partition in its sequence.
local function add_dead_letter(partition, dlq, id, partitions, number)
  local ms, sequence = string.match(append_dated(partition, dlq, 'i', id), '^(%d+)-(%d+)$')
  return ms .. '-' .. string.format('%.0f', sequence * partitions + number)
end

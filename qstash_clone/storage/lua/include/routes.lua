--[[
routes.lua: which lanes a message goes through, from the text in its record; see docs/explanation/lanes.md.

route.line    the lane where it waits first
route.place   the lane of which it holds a place while it is ready or in flight
route.queue, route.flow, route.host   the lanes themselves, as far as it has them
route.slot_queue, route.slot_member   of a callback: the queue, and the member whose slot ends only with it
]]
local function from_hexadecimal(text)
  return (string.gsub(text, '%x%x', function(byte)
    return string.char(tonumber(byte, 16))
  end))
end

local function parse_route(text)
  if string.byte(text) == 104 and not string.find(text, ' ', 1, true) then -- h
    return {line = text, place = text, host = text}
  end
  local route = {}
  for token in string.gmatch(text, '[^ ]+') do
    local kind = string.sub(token, 1, 2)
    if kind == 'q:' then
      route.queue = token
    elseif kind == 'f:' then
      route.flow = token
    elseif kind == 'h:' then
      route.host = token
    elseif kind == 's:' then
      local queue, member = string.match(token, '^s:(.*)/(%x+)$')
      route.slot_queue, route.slot_member = 'q:' .. queue, from_hexadecimal(member)
    end
  end
  route.line = route.queue or route.flow or route.host
  route.place = route.flow or route.queue or route.host
  if not route.line then
    error('a record has a route that this release cannot read')
  end
  return route
end

-- Put an alert on the bus.
--
-- ARGV     1 name, 2 reason, 3 'open' or 'closed' of what lasts, else '' or absent,
--          4 how long the same is not said again (ms); 0 or absent: it is
-- Keys     fleet:alerted:, fleet:bus
-- Returns  the entry's id | false when it was said lately
-- Invariants
--   A reason holds no prompt text and no secret.

local name, reason, state, once_ms = ARGV[1], ARGV[2], ARGV[3] or '', ARGV[4] or 0
local once = 'fleet:alerted:' .. name .. ':' .. redis.sha1hex(reason)
if tonumber(once_ms) > 0 and not redis.call('SET', once, NOW, 'NX', 'PX', once_ms) then
  return false
end
local fields = {'name', name, 'reason', reason}
if state ~= '' then plus(fields, {'state', state}) end
return emit('alert', fields)

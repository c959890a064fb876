-- Put an alert on the bus.
--
-- ARGV     1 name, 2 reason, 3 how long the same is not said again (ms); 0 or nothing: it is
-- Keys     fleet:alerted:, fleet:bus
-- Returns  the entry's id | false when it was said lately
-- Invariants
--   A reason holds no prompt text and no secret.

local once = 'fleet:alerted:' .. ARGV[1] .. ':' .. redis.sha1hex(ARGV[2])
if tonumber(ARGV[3] or 0) > 0 and not redis.call('SET', once, NOW, 'NX', 'PX', ARGV[3]) then return false end
return emit('alert', {'name', ARGV[1], 'reason', ARGV[2]})

-- Put an alert on the bus.
--
-- ARGV     1 name, 2 reason, 3 'open' or 'closed' of what lasts, else absent
-- Keys     fleet:bus
-- Returns  the entry's id
-- Invariants
--   A reason holds no prompt text and no secret.

local fields = {'name', ARGV[1], 'reason', ARGV[2]}
if ARGV[3] then plus(fields, {'state', ARGV[3]}) end
return emit('alert', fields)

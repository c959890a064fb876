-- Put an alert on the bus.
--
-- ARGV     1 name, 2 reason
-- Keys     fleet:bus
-- Returns  the entry's id
-- Invariants
--   A reason holds no prompt text and no secret.

return emit('alert', {'name', ARGV[1], 'reason', ARGV[2]})

-- Tell of an event that a limit refused and whose sender may not hear of it.
--
-- ARGV     1 what carried it, 2 reason, 3 sender or ''
-- Keys     fleet:bus
-- Returns  the entry's id
-- Invariants
--   A reason holds no prompt text and no secret.

return emit('delivery_dropped', {'name', ARGV[1], 'count', 1, 'reason', ARGV[2], 'sender', ARGV[3]})

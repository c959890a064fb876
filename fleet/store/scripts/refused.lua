-- Tell of an event that a limit refused and whose sender may not hear of it.
--
-- ARGV
--   carrier  the way by which the event came
--   reason
--   sender   or ''
-- Keys     fleet:bus
-- Returns  the entry's id
-- Invariants
--   A reason holds no prompt text and no secret.

return emit('delivery_dropped', {'name', ARG.carrier, 'count', 1, 'reason', ARG.reason, 'sender', ARG.sender})

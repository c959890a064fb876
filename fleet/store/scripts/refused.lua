-- Put on the bus that a limit refused an event whose sender may not learn of it.
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

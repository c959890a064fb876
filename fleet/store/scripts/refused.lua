-- Put on the bus that an event was refused whose sender may not learn of it.
--
-- ARGV
--   carrier  the way by which the event came
--   reason
--   sender   or ''
--   agent    the one it was for, or ''
-- Keys     fleet:bus
-- Returns  the entry's id
-- Invariants
--   A reason holds no prompt text and no secret.

local to = ARG.agent ~= '' and {'agent', ARG.agent} or {}
return emit('delivery_dropped', plus({'name', ARG.carrier, 'count', 1, 'reason', ARG.reason,
  'sender', ARG.sender}, to))

-- Let a fleet go on whose store went back: its operator's word.
--
-- ARGV
-- Keys     fleet:lost, fleet:back
-- Returns  why it had stopped, or '' when it had not
-- Invariants
--   As after a silence, no deadline passes until agents had time to come back.

local reason = redis.call('HGET', 'fleet:lost', 'reason')
if not reason then return '' end
redis.call('DEL', 'fleet:lost')
redis.call('SET', 'fleet:back', NOW, 'PX', BACK_MS)
return reason

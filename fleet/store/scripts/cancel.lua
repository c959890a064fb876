-- Cancel a dispatch: at once when it waits, at its next step or at once when it runs.
--
-- ARGV
--   dispatch_id
--   reason
--   keep_ended_ms
--   now            '1' to stop a running turn at once, else '0'
-- With     _busy, _announce, _chain
-- Keys     fleet:dispatch:, fleet:agent:, fleet:due:, fleet:retry, fleet:deadlines, fleet:counts,
--          fleet:session:, fleet:sessions, fleet:ended, fleet:event:, fleet:bus, fleet:orders:
-- Returns  the state after the call ('active' means it was asked to stop), or 'unknown'
-- Invariants
--   A terminal state never leaves. Cancelling twice answers the same.

local id, reason, keep_ms = ARG.dispatch_id, ARG.reason, ARG.keep_ended_ms
local record = read_hash(dispatch_key(id))
if not record.id then return 'unknown' end
if record.state == 'queued' or record.state == 'retrying' or record.state == 'parked' then
  finish(record, 'cancelled', {'error', reason}, {'reason', reason}, keep_ms)
elseif record.state == 'active' then
  redis.call('HSET', dispatch_key(id), 'cancel', reason)
  if ARG.now == '1' then stop(record, reason, keep_ms) end
end
return record.state

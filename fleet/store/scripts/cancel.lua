-- Cancel a dispatch: at once when it waits, at its next step or at once when it runs.
--
-- ARGV     1 dispatch id, 2 reason, 3 keep ended (ms),
--          4 '1' to stop a running turn at once, else '0'
-- With     _busy, _announce, _chain
-- Keys     fleet:dispatch:, fleet:agent:, fleet:due:, fleet:retry, fleet:deadlines, fleet:counts,
--          fleet:session:, fleet:sessions, fleet:ended, fleet:event:, fleet:bus, fleet:orders:
-- Returns  the state after the call ('active' means it was asked to stop), or 'unknown'
-- Invariants
--   A terminal state never leaves. Cancelling twice answers the same.

local id = ARGV[1]
local record = read_hash(dispatch_key(id))
if not record.id then return 'unknown' end
if record.state == 'queued' or record.state == 'retrying' or record.state == 'parked' then
  finish(record, 'cancelled', {'error', ARGV[2]}, {'reason', ARGV[2]}, ARGV[3])
elseif record.state == 'active' then
  redis.call('HSET', dispatch_key(id), 'cancel', ARGV[2])
  if ARGV[4] == '1' then stop(record, ARGV[2], ARGV[3]) end
end
return record.state

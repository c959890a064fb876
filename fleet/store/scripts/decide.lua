-- A person approves or rejects a parked dispatch; its chain goes on or ends in the same step.
--
-- ARGV
--   dispatch_id
--   verdict        'approve' | 'reject'
--   by             the person who decides
--   reason         content of an approval, reason of a rejection, or ''
--   call           a name of this call
--   keep_ended_ms
-- With     _announce, _chain
-- Keys     fleet:dispatch:, fleet:deadlines, fleet:counts, fleet:session:, fleet:sessions,
--          fleet:outcome:, fleet:ended, fleet:event:, fleet:chain:, fleet:trail:, fleet:bus
-- Returns  {'done', state, `id agent` to publish for, ...} | {'unknown'} |
--          {'refused', state, verdict or '', who decided or '', ended (ms) or ''}
-- Invariants
--   Decided once: of two people at once one decides, and the answer to the other names the first.
--   After its deadline nothing is decided, also when no sweep has been there yet.
--   A repeated call of the same name (its reply was lost) answers the same and writes nothing.

local id, verdict, by, reason = ARG.dispatch_id, ARG.verdict, ARG.by, ARG.reason
local call, keep = ARG.call, ARG.keep_ended_ms
local record = read_hash(dispatch_key(id))
if not record.id then return {'unknown'} end
if record.decided_call == call then return {'done', record.state} end

if record.state == 'parked' and NOW >= tonumber(record.deadline_ms) then
  finish(record, 'expired', {'stage', 'expired'},
    {'stage', 'expired', 'reason', 'its deadline passed while it waited'}, keep)
  record.ended_ms = string.format('%.0f', NOW)
end
if record.state ~= 'parked' then
  return {'refused', record.state, record.person and record.verdict or '', record.decided_by or '',
    record.ended_ms or ''}
end

record.verdict, record.decided_by, record.said = verdict, by, reason
local set = {'verdict', verdict, 'decided_by', by, 'decided_call', call}
if verdict == 'approve' then
  redis.call('SET', 'fleet:outcome:' .. id, reason, 'PX', keep)
  finish(record, 'completed', set, {}, keep)
else
  finish(record, 'cancelled', plus(set, {'error', reason}), {'reason', reason}, keep)
end
return plus({'done', record.state}, unnotified)

-- End an attempt: the outcome, the bus entries and the removal from the work lists, at once.
--
-- ARGV     1 dispatch id ('' means whatever the agent has active), 2 agent, 3 fence,
--          4 attempt ('' with an empty id), 5 verdict 'completed' | 'failed' | 'cancelled' | 'held',
--          6 record fields (JSON object of strings), 7 answer (content),
--          8 stage, 9 reason, 10 retryable '1'|'0', 11 attempts allowed, 12 minimum age (ms),
--          13 first wait before a retry (ms), 14 jitter, from 0 to 1, 15 never before (ms),
--          16 keep dead (ms), 17 keep ended (ms),
--          18 what was said, as a message of its session's history ('' for none), 19 what was
--          answered, 20 most messages kept, 21 most bytes of them, 22 keep a history (ms)
-- With     _history, _announce, _chain, _spend, _ending
-- Keys     fleet:dispatch:, fleet:outcome:, fleet:agent:, fleet:due:, fleet:retry, fleet:deadlines,
--          fleet:session:, fleet:sessions, fleet:counts, fleet:totals, fleet:ended, fleet:dead,
--          fleet:event:, fleet:history:, fleet:spend:, fleet:deliveries, fleet:delivery:, fleet:bus
-- Returns  {'done', state, `id agent` to ring for, ...} | {'fenced'} | {'gone'}
-- Invariants
--   Only the attempt that runs now, under the newest token, ends a dispatch.
--   While the agent has work there is a doorbell: more are used up than rung when workers die.
--   A repeated call (its reply was lost) answers the same and writes nothing.
--   Totals count each turn once, and of what a turn has cost only what earlier attempts had not.
--   One that its agent's budget stopped waits for it as long as its deadline allows.
--   A held one has used up no attempt and is the agent's next; the agent claims none before its time.
--   A session's history is written with the outcome, once, or not at all.
--   Dead only when attempts and minimum age are used up, the error is permanent, or the deadline
--   passed.

local id, agent, fence, attempt = unpack(ARGV, 1, 4)

if id == '' then
  id = redis.call('HGET', agent_key(agent), 'active') or ''
  attempt = redis.call('HGET', dispatch_key(id), 'attempt') or ''
end
local record = read_hash(dispatch_key(id))
if not record.id then return {'gone'} end
if record.committed == attempt .. '/' .. fence then return {'done', record.state} end
if record.state ~= 'active' or record.attempt ~= attempt or record.fence ~= fence
  or not newest(agent, fence) then
  return {'fenced'}
end

return end_attempt(record, fence, NOW - tonumber(record.started_ms), {unpack(ARGV, 5)})

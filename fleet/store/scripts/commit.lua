-- End an attempt: the outcome, the bus entries and the removal from the work lists, at once.
--
-- ARGV
--   dispatch_id  '' for the agent's active dispatch
--   agent
--   fence
--   lease
--   attempt      '' with an empty dispatch_id
--   ending...    EndingArgs, see `_ending.lua`
-- With     _holder, _history, _announce, _chain, _spend, _failures, _ending
-- Keys     fleet:dispatch:, fleet:outcome:, fleet:agent:, fleet:due:, fleet:retry, fleet:deadlines,
--          fleet:session:, fleet:sessions, fleet:counts, fleet:totals, fleet:ended, fleet:dead,
--          fleet:event:, fleet:history:, fleet:spend:, fleet:deliveries, fleet:delivery:,
--          fleet:failures:, fleet:bus
-- Returns  {'done', state, `id agent` to publish for, ...} | {'fenced'} | {'gone'}
-- Invariants
--   Only the attempt that runs now, under the newest token, ends a dispatch. One that was stopped ends
--   nothing but its hold of agent and session.
--   While the agent has work there is a wake-up: dying workers use up more than are pushed.
--   A repeated call (its reply was lost) answers the same and writes nothing.
--   Totals count each turn once, and of what a turn has cost only what earlier attempts had not.
--   One that its agent's budget stopped, or that a model's provider asked to wait, waits as long as its
--   deadline allows.
--   A held one has used up no attempt and is the agent's next; the agent claims none before its time.
--   A session's history is written with the outcome, once, or not at all.
--   Dead only when attempts and minimum age are used up, the error is permanent, or the deadline
--   passed.

local id, agent, fence, attempt = ARG.dispatch_id, ARG.agent, ARG.fence, ARG.attempt

if id == '' then
  id = redis.call('HGET', agent_key(agent), 'active') or ''
  attempt = redis.call('HGET', dispatch_key(id), 'attempt') or ''
end
local record = read_hash(dispatch_key(id))
if not record.id then return {'gone'} end
if record.committed == attempt .. '/' .. fence and record.lease == ARG.lease then
  return {'done', record.state}
end
local ours = record.lease == ARG.lease and record.attempt == attempt
if record.state ~= 'active' or not ours or record.fence ~= fence
  or not (record.pool or newest(agent, fence, ARG.lease)) then
  if ours and record.pool then end_stopped_turn(record) elseif ours then end_stopped(agent) end
  return {'fenced'}
end

local ending = EndingArgs(ARG.ending)
return end_attempt(record, fence, NOW - tonumber(record.started_ms), ending)

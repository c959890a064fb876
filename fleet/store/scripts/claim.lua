-- Claim the agent's next runnable dispatch, in ledger order, whatever id the wake-up has.
--
-- ARGV
--   agent
--   fence
--   lease
--   holder
--   losses_max     losses at which a dispatch is dead-lettered
--   keep_dead_ms
--   keep_ended_ms
--   call           a name of this call
--   history_max    most messages of the session's history in the answer
--   ageing_ms      see `_lanes.lua`
-- With     _holder, _history, _announce, _chain, _expire, _lanes, _failures, _claim, _loss
-- Keys     fleet:lost, fleet:lease:, fleet:fences, fleet:turn_fence, fleet:agent:, fleet:due:, fleet:dispatch:, fleet:payload:, fleet:journal:,
--          fleet:counts, fleet:session:, fleet:sessions, fleet:deadlines, fleet:retry, fleet:ended,
--          fleet:dead, fleet:event:, fleet:history:, fleet:failures:, fleet:totals, fleet:bus
-- Returns  {'claimed', id, attempt, the turn's fence, payload, cancel, history, payloads of the events that joined
--          it, and in a chain: what it is (JSON), what each earlier stage ended with (JSON), ...}
--          | {'idle'} | {'paused'} | {'held'} | {'fenced'}
-- Invariants
--   At most one active dispatch per agent, and one per session: an active one is taken up again
--   before any other.
--   An active one found here lost its worker: that attempt is counted as a loss, and at the cap the
--   dispatch is dead-lettered, so a poison event cannot kill workers for ever. Not so where the store itself
--   was started after the attempt was: a worker ends when it cannot renew its lease, which is no
--   fault of the event.
--   Only the holder of a live lease claims.
--   The turn's fence grows with every attempt in the fleet, so with every holder of an agent, and of a
--   session that several agents share. It is no less than the time, so a store that lost its last writes,
--   or has an older backup, gives none again.
--   Nothing starves: see `_lanes.lua`.
--   A repeated call of the same name (its reply was lost) answers the same and counts no loss.

local agent, call = ARG.agent, ARG.call

if lease_name(agent) ~= ARG.lease or not newest(agent, ARG.fence, ARG.lease) then
  return {'fenced'}
end

local history_max = tonumber(ARG.history_max)

-- The worker's one child asks, or another holder's: no earlier turn of the agent lives.
end_stopped(agent)
local interrupted = read_hash(dispatch_key(redis.call('HGET', agent_key(agent), 'active') or ''))
if interrupted.call == call and interrupted.state == 'active' then
  return claimed(interrupted, history_max)
end
if redis.call('HGET', agent_key(agent), 'paused') or redis.call('EXISTS', 'fleet:lost') == 1 then
  return {'paused'}
end
if tonumber(redis.call('HGET', agent_key(agent), 'hold_ms') or 0) > NOW then return {'held'} end

local function begin(record)
  start(record, {fence = ARG.fence, lease = ARG.lease, holder = ARG.holder, call = call})
  redis.call('HSET', agent_key(agent), 'active', record.id, 'claimed_ms', NOW)
  return claimed(record, history_max)
end

if interrupted.state == 'active' then
  if count_loss(interrupted, ARG.losses_max, ARG.keep_dead_ms) then return begin(interrupted) end
else
  redis.call('HDEL', agent_key(agent), 'active')
end

local record = take_next(agent, tonumber(ARG.ageing_ms), ARG.keep_ended_ms)
return record and begin(record) or {'idle'}

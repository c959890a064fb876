-- End a turn in a pool and claim the next one, of any of the pool's agents.
--
-- ARGV
--   pool           as in `pool_claim.lua`
--   worker
--   holder
--   ttl_ms
--   max_share
--   keep_ended_ms
--   history_max
--   ageing_ms
--   losses_max
--   keep_dead_ms
--   next_lease     a random name of the next turn's lease
--   dispatch_id    as in `commit.lua`
--   agent
--   fence
--   lease
--   attempt
--   ending...      EndingArgs, see `_ending.lua`
-- With     _holder, _history, _announce, _chain, _expire, _lanes, _spend, _failures, _ending, _commit, _claim, _loss,
--          _pool_turns, _pool_claim
-- Keys     those of `commit.lua` and of `pool_claim.lua`
-- Returns  {what `commit.lua` answers, what `pool_claim.lua` answers}
-- Invariants
--   Those of both. There is a wake-up for each agent that came into the line, but for the one whose turn is
--   claimed here: no other process is woken for what this one does.
--   Nothing is claimed where the end is refused. A repeated call (its reply was lost) answers the same and writes nothing.

local how = {pool = ARG.pool, worker = ARG.worker, holder = ARG.holder, ttl_ms = ARG.ttl_ms,
  max_share = ARG.max_share, keep_ended_ms = ARG.keep_ended_ms, history_max = ARG.history_max,
  ageing_ms = ARG.ageing_ms, losses_max = ARG.losses_max, keep_dead_ms = ARG.keep_dead_ms}
deferred = {}
local ended = commit(ARG.dispatch_id, ARG.agent, ARG.fence, ARG.lease, ARG.attempt, EndingArgs(ARG.ending))
local claim = ended[1] == 'done' and claim_in_pool(how, ARG.next_lease, false) or {}
local wakeups = deferred
deferred = nil
local queue, spare = 'pool.' .. ARG.pool, #claim > 0
for i = #wakeups, 1, -1 do
  if spare and wakeups[i][1] == queue then
    table.remove(wakeups, i)
    spare = false
  end
end
if spare and TEMPLATE ~= '' then redis.call('RPOP', queue) end
for _, one in ipairs(wakeups) do push(one[1], one[2]) end
return {ended, claim}

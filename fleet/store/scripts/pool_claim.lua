-- Claim the next runnable dispatch of any agent of a pool.
--
-- ARGV
--   pool
--   worker         name of the worker's process
--   holder         'host:pid'
--   lease          a random name of this turn's lease
--   ttl_ms
--   max_share      most of the pool's processes for one agent, from above 0 to 1
--   chained        '1' for a child that has just ended a turn and needed no wake-up, else '0'
--   keep_ended_ms
--   history_max    most messages of the session's history in the answer
--   ageing_ms      see `_lanes.lua`
--   losses_max
--   keep_dead_ms
-- With     _history, _announce, _chain, _expire, _lanes, _failures, _claim, _loss, _pool_turns, _pool_claim
-- Keys     fleet:lost, fleet:ready:, fleet:pools, fleet:pool:, fleet:rests, fleet:served, fleet:claim:,
--          fleet:running:, fleet:turns, fleet:lease:, fleet:turn_fence, fleet:agent:, fleet:due:,
--          fleet:dispatch:, fleet:payload:, fleet:counts, fleet:session:, fleet:sessions, fleet:deadlines,
--          fleet:retry, fleet:ended, fleet:event:, fleet:history:, fleet:totals, fleet:bus, pool.<pool>
-- Returns  {agent, epoch, '1' when programs of an earlier turn may still run, and what `claim.lua` answers
--          behind 'claimed'} | {}
-- Invariants
--   At most `parallel` active dispatches of an agent, and one of a session. None of an agent whose own worker
--   has a live lease.
--   Agents take turns: the one that had the fewest, by its weight, is next. No agent has more than `max_share`
--   of the processes, but one.
--   The turn's lease is this attempt's alone; its fence grows with every attempt in the fleet.
--   While an agent with work and room stands in the line, there is a wake-up for it, or a child that claims.
--   A repeated call of the same lease (its reply was lost) answers the same.

local how = {pool = ARG.pool, worker = ARG.worker, holder = ARG.holder, ttl_ms = ARG.ttl_ms,
  max_share = ARG.max_share, keep_ended_ms = ARG.keep_ended_ms, history_max = ARG.history_max,
  ageing_ms = ARG.ageing_ms, losses_max = ARG.losses_max, keep_dead_ms = ARG.keep_dead_ms}
return claim_in_pool(how, ARG.lease, ARG.chained == '1')

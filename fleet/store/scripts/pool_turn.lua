-- Record that the process of a turn in a pool is dead.
--
-- ARGV
--   dispatch_id
--   lease
--   how           'lost'; or handed back by its own worker, which 'stopped' it, or has not begun it because the
--                 agent is 'unknown' to it
--   losses_max
--   keep_dead_ms
-- With     _announce, _chain, _failures, _loss, _pool_turns
-- Keys     fleet:dispatch:, fleet:turns, fleet:running:, fleet:agent:, fleet:due:, fleet:pools, fleet:ready:,
--          fleet:rests, fleet:served, fleet:deadlines, fleet:counts, fleet:session:, fleet:sessions, fleet:dead,
--          fleet:event:, fleet:failures:, fleet:totals, fleet:bus, pool.<pool>
-- Returns  the dispatch's state after it; '' when the turn had not that lease
-- Invariants
--   Only the attempt that has this lease is ended, and once.

local record = read_hash(dispatch_key(ARG.dispatch_id))
if not record.pool or record.lease ~= ARG.lease
  or redis.call('SISMEMBER', running_key(record.agent), record.id) == 0 then return '' end
if ARG.how ~= 'lost' and record.state == 'active' then
  redis.call('HSET', agent_key(record.agent), 'unclean', 1)
  leave_agent(record)
  hand_back(record)
  local pool = pool_of(record.agent)
  if ARG.how == 'unknown' and pool then
    -- For another worker of the pool, which has a newer configuration.
    redis.call('ZREM', ready_key(pool), record.agent)
    redis.call('ZADD', 'fleet:rests', NOW + 1000, record.agent)
  end
else
  lose_turn(record, ARG.losses_max, ARG.keep_dead_ms)
end
return redis.call('HGET', dispatch_key(record.id), 'state') or ''

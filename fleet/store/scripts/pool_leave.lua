-- Record that a worker of a pool has ended, with all its turns.
--
-- ARGV
--   pool
--   worker        name of the worker's process
--   losses_max
--   keep_dead_ms
-- With     _announce, _chain, _failures, _loss, _pool_turns, _pool_workers
-- Keys     fleet:pool:, fleet:turns, fleet:running:, fleet:dispatch:, fleet:agent:, fleet:due:, fleet:pools,
--          fleet:ready:, fleet:rests, fleet:served, fleet:deadlines, fleet:counts, fleet:session:, fleet:sessions,
--          fleet:dead, fleet:event:, fleet:failures:, fleet:totals, fleet:bus, pool.<pool>
-- Returns  how many turns it had
-- Invariants
--   A turn that it handed back before is not lost. While agents stand in the line there are wake-ups.

local lost = 0
for _, id in ipairs(redis.call('ZRANGE', 'fleet:turns', 0, -1)) do
  if redis.call('HGET', dispatch_key(id), 'worker') == ARG.worker then
    lose_turn(read_hash(dispatch_key(id)), ARG.losses_max, ARG.keep_dead_ms)
    lost = lost + 1
  end
end
local _, _, _, holder = read_worker(ARG.pool, ARG.worker)
if holder then
  redis.call('HDEL', pool_key(ARG.pool), ARG.worker)
  emit('agent_offline', {'agent', 'pool.' .. ARG.pool, 'holder', holder, 'reason', 'stopped'})
end

-- It may have popped wake-ups that no child of it took.
local short = redis.call('ZCARD', ready_key(ARG.pool)) - (TEMPLATE ~= '' and redis.call('LLEN', 'pool.' .. ARG.pool) or 0)
for _, agent in ipairs(short > 0 and redis.call('ZRANGE', ready_key(ARG.pool), 0, math.min(short, 100) - 1) or {}) do
  local id = redis.call('ZRANGE', due_key(agent), 0, 0)[1]
  if id then push('pool.' .. ARG.pool, id) end
end
return lost

-- Record the agents that a pool runs.
--
-- ARGV
--   pool
--   agents...  PoolAgentArgs
-- PoolAgentArgs
--   name
--   parallel  most turns at once
--   weight    share of the pool's turns where more agents wait than it has processes
-- Keys     fleet:starting, fleet:pools, fleet:ready:, fleet:due:, fleet:agent:, fleet:running:,
--          agent.<agent>, pool.<pool>
-- Returns  how many of them have work that may begin
-- Invariants
--   An agent is in the line of one pool. One that has work when its pool is recorded comes into its line.
--   No wake-up is left in a queue that no worker serves.

local pool, ready, at = ARG.pool, 0, ARG.agents + 1
for _ = 1, tonumber(ARGV[ARG.agents]) do
  local agent
  agent, at = PoolAgentArgs(at)
  local before = pool_of(agent.name)
  if before and before ~= pool then redis.call('ZREM', ready_key(before), agent.name) end
  redis.call('HSET', 'fleet:pools', agent.name, agent.parallel .. ' ' .. agent.weight .. ' ' .. pool)
  redis.call('DEL', 'agent.' .. agent.name)
  redis.call('HDEL', 'fleet:starting', agent.name)
  make_ready(agent.name, pool, tonumber(agent.parallel))
  if redis.call('ZSCORE', ready_key(pool), agent.name) then ready = ready + 1 end
end
return ready

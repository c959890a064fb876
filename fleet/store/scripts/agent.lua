-- Pause or resume an agent: a paused one finishes its running turn and starts no other. `fund` lets go
-- on what its budget stopped, and nothing else.
--
-- ARGV
--   agent
--   verb   'pause' | 'resume' | 'fund'
-- Keys     fleet:agent:, fleet:due:, fleet:providers, fleet:pools, fleet:running:, fleet:ready:, fleet:rests,
--          fleet:served, fleet:bus, agent.<agent>, pool.<pool>
-- Returns  1 when it changed, else 0
-- Invariants
--   Idempotent. After a resume there is a wake-up for each runnable dispatch.
--   A resumed agent tries at once every model that had stopped it, and so does the rest of the fleet.

local agent = ARG.agent
if ARG.verb == 'pause' then return redis.call('HSETNX', agent_key(agent), 'paused', NOW) end
local fund = ARG.verb == 'fund'
if fund and redis.call('HGET', agent_key(agent), 'hold_stage') ~= 'budget' then return 0 end
local changed = 0
if not fund then changed = redis.call('HDEL', agent_key(agent), 'paused') end
if redis.call('HDEL', agent_key(agent), 'hold_ms', 'hold_stage', 'hold_reason') > 0 then changed = 1 end
local breakers = fund and {} or redis.call('HGETALL', 'fleet:providers')
for at = 1, #breakers, 2 do
  if (cjson.decode(breakers[at + 1]).agents or {})[agent] then
    redis.call('HDEL', 'fleet:providers', breakers[at])
    emit('breaker_closed', {'name', breakers[at], 'reason', 'the agent was resumed', 'agent', agent})
    changed = 1
  end
end
local pool, parallel = pool_of(agent)
if pool then
  make_ready(agent, pool, parallel)
  return changed
end
notify_for_all(agent, redis.call('ZRANGE', due_key(agent), 0, 999))
return changed

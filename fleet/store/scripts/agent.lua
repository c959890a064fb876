-- Pause or resume an agent: a paused one finishes its running turn and starts no other.
--
-- ARGV
--   agent
--   verb   'pause' | 'resume'
-- Keys     fleet:agent:, fleet:due:, fleet:providers, agent.<agent>
-- Returns  1 when it changed, else 0
-- Invariants
--   Idempotent. After a resume there is a wake-up for each runnable dispatch.
--   A resumed agent tries at once what had denied it: its key may be another one now.

local agent = ARG.agent
if ARG.verb == 'pause' then return redis.call('HSETNX', agent_key(agent), 'paused', NOW) end
local changed = redis.call('HDEL', agent_key(agent), 'paused', 'hold_ms') > 0 and 1 or 0
for _, name in ipairs(redis.call('HKEYS', 'fleet:providers')) do
  if string.sub(name, 1, #agent + 1) == agent .. '/' then
    redis.call('HDEL', 'fleet:providers', name)
  end
end
notify_for_all(agent, redis.call('ZRANGE', due_key(agent), 0, 999))
return changed

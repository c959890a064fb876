-- Acquire an agent's lease, and push a wake-up for each waiting dispatch: the new holder starts with
-- exact wake-ups.
--
-- ARGV
--   agent
--   ttl_ms
--   holder   'host:pid'
--   client   id of a connection that the holder keeps open
--   run      id of that server's run
--   process  name of the holder's process
--   stolen   fence of a live lease that may be replaced, '' for none
-- Keys     fleet:lease:, fleet:fences, fleet:agent:, fleet:due:, agent.<agent>, fleet:bus
-- Returns  {1, fence, notified, epoch} | {0, fence, holder, client id, run id, process, ms left}
-- Invariants
--   One holder at a time; the fencing token only grows. A repeated call of the holder (its reply was
--   lost) answers the same token.
--   After an acquisition there is a wake-up for each runnable dispatch, whatever the last holder popped.

local agent, ttl, holder, client, run = ARG.agent, ARG.ttl_ms, ARG.holder, ARG.client, ARG.run
local key = lease_key(agent)

local held = read_hash(key)
if held.holder == holder and held.client == client and held.run == run then
  redis.call('PEXPIRE', key, ttl)
  return {1, tonumber(held.fence), 0, epoch()}
end
if held.fence and held.fence ~= ARG.stolen then
  return {0, held.fence, held.holder, held.client, held.run, held.process or '',
    redis.call('PTTL', key)}
end

local fence = redis.call('HINCRBY', 'fleet:fences', agent, 1)
redis.call('DEL', key)
redis.call('HSET', key, 'fence', fence, 'holder', holder, 'client', client, 'run', run,
  'process', ARG.process, 'since_ms', NOW)
redis.call('PEXPIRE', key, ttl)
redis.call('HSET', agent_key(agent), 'holder', holder)
emit('agent_online', {'agent', agent, 'holder', holder, 'fence', fence})

local waiting = redis.call('ZRANGE', due_key(agent), 0, 999)
local active = redis.call('HGET', agent_key(agent), 'active')
if active then table.insert(waiting, 1, active) end
return {1, fence, notify_for_all(agent, waiting), epoch()}

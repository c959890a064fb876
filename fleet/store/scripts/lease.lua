-- Acquire an agent's lease, and push a wake-up for each waiting dispatch: the new holder starts with
-- exact wake-ups.
--
-- ARGV
--   agent
--   ttl_ms
--   holder   'host:pid'
--   client   id of a connection that the holder keeps open
--   run      id of that server's run
--   lease    a random name of this acquisition
--   process  name of the holder's process
--   stolen   fence of a live lease that may be replaced, '' for none
-- Keys     fleet:lease:, fleet:fences, fleet:agent:, fleet:due:, fleet:starting, fleet:running:, fleet:pools,
--          fleet:ready:, agent.<agent>, fleet:bus
-- Returns  {1, fence, notified, epoch} | {0, fence, holder, client id, run id, process, ms left}
-- Invariants
--   A lease whose holder is dead is over after `ttl_ms` of the ledger's time.
--   One holder at a time; the fencing token only grows. A repeated call of the same name (its reply
--   was lost) answers the same token.
--   A server that was promoted, restarted or restored may have lost tokens that it gave: it goes on far
--   above them.
--   After an acquisition there is a wake-up for each runnable dispatch, whatever the last holder popped.

-- More than an agent can get holders in the time whose writes a server loses.
local TOKENS_LOST_MAX = 1000

local agent, ttl, holder, client, run = ARG.agent, ARG.ttl_ms, ARG.holder, ARG.client, ARG.run
local key = lease_key(agent)

local held = lease_name(agent) and read_hash(key) or {}
if held.lease == ARG.lease then
  redis.call('HSET', key, 'client', client, 'run', run, 'until_ms', NOW + ttl)
  redis.call('PEXPIRE', key, ttl + KEY_GRACE_MS)
  return {1, tonumber(held.fence), 0, epoch()}
end
if held.fence and held.fence ~= ARG.stolen then
  return {0, held.fence, held.holder, held.client, held.run, held.process or '',
    tonumber(held.until_ms or NOW) - NOW}
end

-- A pool that had the agent before ends its turns first.
if redis.call('SCARD', running_key(agent)) > 0 then return {0, '', 'a pool', '', '', '', ttl} end
local pool = pool_of(agent)
if pool then
  redis.call('HDEL', 'fleet:pools', agent)
  redis.call('ZREM', ready_key(pool), agent)
end

-- Another one whenever the server begins a history of writes of its own.
local history = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') or ''
local before = redis.call('HGET', agent_key(agent), 'history') or history
local fence = redis.call('HINCRBY', 'fleet:fences', agent, before == history and 1 or TOKENS_LOST_MAX)
redis.call('DEL', key)
redis.call('HSET', key, 'fence', fence, 'lease', ARG.lease, 'holder', holder, 'client', client,
  'run', run, 'process', ARG.process, 'since_ms', NOW, 'until_ms', NOW + ttl)
redis.call('PEXPIRE', key, ttl + KEY_GRACE_MS)
redis.call('HSET', agent_key(agent), 'holder', holder, 'lease', ARG.lease, 'history', history)
redis.call('HDEL', 'fleet:starting', agent)
tally(agent, 'holders')
emit('agent_online', {'agent', agent, 'holder', holder, 'fence', fence})

local waiting = redis.call('ZRANGE', due_key(agent), 0, 999)
local active = redis.call('HGET', agent_key(agent), 'active')
if active then table.insert(waiting, 1, active) end
return {1, fence, notify_for_all(agent, waiting), epoch()}

-- Renew a lease, and push a wake-up when the holder idles though work waits.
--
-- ARGV
--   agent
--   fence
--   lease
--   ttl_ms
--   client           as in `lease.lua`
--   run
--   process
--   holder
--   busy             '1' when the holder has a wake-up in hand, else '0'
--   consuming        '1' when the holder consumes its queue, else '0'
--   beat_silence_ms  silence of beat after which an alert is given: two periods
-- With     _holder, _starting
-- Keys     fleet:lease:, fleet:fences, fleet:agent:, fleet:due:, agent.<agent>, fleet:beat,
--          fleet:alerted:, fleet:bus
-- Returns  {1, id of a pushed wake-up or ''} while the lease is the caller's, else {0, ''}
-- Invariants
--   A lease that went to another is never taken back, not even under an equal token: a store that has
--   lost writes may give one again, which is noticed here. One that ran out while nobody else took it (the broker
--   was away) comes back under the same token: no claim can have happened in between.
--   An idle holder never waits for a lost wake-up, nor for a wake-up that its dead child popped.

local agent, fence = ARG.agent, ARG.fence
local key = lease_key(agent)

-- The store does not know a token that it gave, or gave it again. So that no later one repeats it, the
-- next is above; what runs under the same token ends, too.
local function go_above(newest_fence)
  if tonumber(fence) < newest_fence then return end
  redis.call('HSET', 'fleet:fences', agent, tonumber(fence) + 1)
  -- An emptied store is another alert's.
  if newest_fence > 0 then
    alert_once('token_repeated', agent, 'the store has lost writes: token ' .. fence
      .. ' is not known any more, or has two holders')
  end
end

if not newest(agent, fence, ARG.lease) then
  go_above(tonumber(redis.call('HGET', 'fleet:fences', agent) or 0))
  return {0, ''}
end
local held = lease_name(agent)
if held ~= ARG.lease then
  if held then return {0, ''} end
  redis.call('HSET', key, 'fence', fence, 'lease', ARG.lease, 'holder', ARG.holder,
    'process', ARG.process, 'since_ms', NOW)
  if redis.call('HSET', agent_key(agent), 'holder', ARG.holder) == 1 then
    emit('agent_online', {'agent', agent, 'holder', ARG.holder, 'fence', fence})
  end
end
redis.call('HSET', key, 'client', ARG.client, 'run', ARG.run, 'consuming', ARG.consuming,
  'reported_ms', NOW, 'until_ms', NOW + ARG.ttl_ms)
redis.call('PEXPIRE', key, ARG.ttl_ms + KEY_GRACE_MS)

-- Beat leaves a sign of life in the store. A holder that sees none gives an alert.
local since = math.max(tonumber(redis.call('HGET', key, 'since_ms')),
  1000 * tonumber(redis.call('HGET', 'fleet:beat', 'health') or 0))
if NOW - since > tonumber(ARG.beat_silence_ms) and not is_starting('|beat') then
  alert_once('beat_dead', '', 'no beat for ' .. math.floor((NOW - since) / 1000)
    .. ' s: retries, expiry and repair stand still')
end

if ARG.busy == '1' then return {1, ''} end
return {1, notify_if_short(agent, true)}

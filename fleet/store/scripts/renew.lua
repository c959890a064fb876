-- Keep a lease for another time to live, and ring when the holder idles though work waits.
--
-- ARGV     1 agent, 2 fence, 3 time to live (ms), 4 client id, 5 run id, 6 name of the holder's
--          process, 7 holder, 8 '1' when the holder has a doorbell in hand, else '0',
--          9 '1' when it consumes its queue, else '0', 10 how long beat may be silent (ms)
-- Keys     fleet:lease:, fleet:fences, fleet:agent:, fleet:due:, agent.<agent>, fleet:beat,
--          fleet:alerted:, fleet:bus
-- Returns  {1, id rung for or ''} while the lease is the caller's, else {0, ''}
-- Invariants
--   A lease that went to another is never taken back, not even under an equal token: a store that
--   was emptied gives the same tokens again. One that ran out while nobody else took it (the broker
--   was away) comes back under the same token: no claim can have happened in between.
--   An idle holder never waits for a doorbell that got lost, nor for one its dead child took along.

local agent, fence = ARGV[1], ARGV[2]
local key = lease_key(agent)
local held = redis.call('HMGET', key, 'fence', 'process')
if held[1] ~= fence or held[2] ~= ARGV[6] then
  if held[1] or not newest(agent, fence) then return {0, ''} end
  redis.call('HSET', key, 'fence', fence, 'holder', ARGV[7], 'process', ARGV[6], 'since_ms', NOW)
  if redis.call('HSET', agent_key(agent), 'holder', ARGV[7]) == 1 then
    emit('agent_online', {'agent', agent, 'holder', ARGV[7], 'fence', fence})
  end
end
redis.call('HSET', key, 'client', ARGV[4], 'run', ARGV[5], 'consuming', ARGV[9],
  'reported_ms', NOW)
redis.call('PEXPIRE', key, ARGV[3])

-- Beat leaves a sign of life in the store; a holder that sees none says so. ARGV[10] is two periods.
local since = math.max(tonumber(redis.call('HGET', key, 'since_ms')),
  1000 * tonumber(redis.call('HGET', 'fleet:beat', 'health') or 0))
if NOW - since > tonumber(ARGV[10]) then
  alert_once('beat_dead', '', 'no beat for ' .. math.floor((NOW - since) / 1000)
    .. ' s: retries, expiry and repair stand still')
end

if ARGV[8] == '1' then return {1, ''} end
return {1, ring_if_short(agent, true)}

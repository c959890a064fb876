-- Request the answer that a service gives by a call of its own, or get it when it has come.
--
-- ARGV
--   dispatch_id
--   fence
--   attempt
--   round        how often the event was posted
--   anew         '1' when the round before ended with a failure, else '0'
-- Keys     fleet:dispatch:, fleet:callback:, fleet:fences
-- Returns  {'fenced'} | {'cancel', why} | {'waiting'} | {'answered', media type, body}
-- Invariants
--   Only the attempt that runs now requests it. A repeated request changes nothing.
--   An answer stays for a later attempt to find; only a failure is forgotten, by the next round.

local id, fence, attempt, round = ARG.dispatch_id, ARG.fence, ARG.attempt, ARG.round
local state, agent, owner, current, cancel = unpack(redis.call('HMGET', dispatch_key(id),
  'state', 'agent', 'fence', 'attempt', 'cancel'))
if state ~= 'active' or owner ~= fence or current ~= attempt or not newest(agent, fence) then
  return {'fenced'}
end
if cancel then return {'cancel', cancel} end

local key = 'fleet:callback:' .. id
if redis.call('HGET', key, 'round') ~= round then
  if ARG.anew == '1' then redis.call('DEL', key) end
  redis.call('HSET', key, 'round', round)
end
local kind, body = unpack(redis.call('HMGET', key, 'type', 'body'))
if not body then return {'waiting'} end
return {'answered', kind, body}

-- Request the answer that a service gives by a call of its own, or get it when it has come.
--
-- ARGV
--   dispatch_id
--   fence
--   lease
--   attempt
--   round        how often the event was posted
--   anew         '1' when the round before ended with a failure, else '0'
-- With     _holder
-- Keys     fleet:dispatch:, fleet:callback:, fleet:fences, fleet:agent:
-- Returns  {'fenced'} | {'cancel', why} | {'waiting'} | {'answered', media type, body}
-- Invariants
--   Only the attempt that runs now requests it. A repeated request changes nothing.
--   An answer stays for a later attempt to find; only a failure is forgotten, by the next round.

local agent, cancel = current(ARG.dispatch_id, ARG.fence, ARG.lease, ARG.attempt)
if not agent then return {'fenced'} end
if cancel then return {'cancel', cancel} end

local key, round = 'fleet:callback:' .. ARG.dispatch_id, ARG.round
if redis.call('HGET', key, 'round') ~= round then
  if ARG.anew == '1' then redis.call('DEL', key) end
  redis.call('HSET', key, 'round', round)
end
local kind, body = unpack(redis.call('HMGET', key, 'type', 'body'))
if not body then return {'waiting'} end
return {'answered', kind, body}

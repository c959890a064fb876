-- Store the upstream client's cursor, or its mode.
--
-- ARGV
--   verb     'cursor' | 'mode'
--   digest   of the gateway
--   fence    the client's fencing token
--   value    id of the last event that is done | 'ws', 'poll' or '' for neither
--   mode_ms  life of a mode
-- Keys     fleet:upstream:, fleet:upstream_mode
-- Returns  1; 0 when a newer client has spoken
-- Invariants
--   A client that lost its lock changes nothing any more. A cursor is stored only after its event was
--   accepted, or refused for good and counted.

local key, fence = 'fleet:upstream:' .. ARG.digest, tonumber(ARG.fence)
if fence < tonumber(redis.call('HGET', key, 'fence') or 0) then return 0 end
redis.call('HSET', key, 'fence', ARG.fence)
if ARG.verb == 'cursor' then
  redis.call('HSET', key, 'cursor', ARG.value)
elseif ARG.value == '' then
  redis.call('DEL', 'fleet:upstream_mode')
else
  redis.call('SET', 'fleet:upstream_mode', ARG.value, 'PX', ARG.mode_ms)
end
return 1

-- Keep the upstream client's place, or say how it gets its events.
--
-- ARGV     1 'cursor' | 'mode', 2 digest of the gateway, 3 the client's fencing token,
--          4 id of the last event dealt with | 'ws', 'poll' or '' for neither, 5 life of a mode (ms)
-- Keys     fleet:upstream:, fleet:upstream_mode
-- Returns  1; 0 when a newer client has spoken
-- Invariants
--   A client that lost its lock changes nothing any more. A cursor is kept only after its event was
--   accepted, or refused for good and counted.

local key, fence = 'fleet:upstream:' .. ARGV[2], tonumber(ARGV[3])
if fence < tonumber(redis.call('HGET', key, 'fence') or 0) then return 0 end
redis.call('HSET', key, 'fence', ARGV[3])
if ARGV[1] == 'cursor' then
  redis.call('HSET', key, 'cursor', ARGV[4])
elseif ARGV[4] == '' then
  redis.call('DEL', 'fleet:upstream_mode')
else
  redis.call('SET', 'fleet:upstream_mode', ARGV[4], 'PX', ARGV[5])
end
return 1

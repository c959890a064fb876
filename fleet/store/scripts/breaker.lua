-- The breaker's probe: a write that puts the breaker's opening and its closing now on the bus.
--
-- ARGV
--   opening  name of this opening
--   host     the host whose breaker it is
--   cause    of the opening
--   age_ms   time since the opening
-- Keys     fleet:breaker:, fleet:bus
-- Returns  1 when it was reported now, 0 when it was reported before
-- Invariants
--   An opening is reported once, however often the probe is repeated because its answer was lost.

if not redis.call('SET', 'fleet:breaker:' .. ARG.opening, NOW, 'NX', 'PX', 3600000) then return 0 end
local seconds = ARG.age_ms / 1000
emit('breaker_opened', {'breaker', 'broker', 'host', ARG.host, 'elapsed_s', seconds,
  'reason', 'the broker was lost: ' .. ARG.cause})
emit('breaker_closed', {'breaker', 'broker', 'host', ARG.host, 'elapsed_s', seconds,
  'reason', 'the broker is back'})
return 1

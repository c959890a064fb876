-- The breaker's probe: a write, which says on the bus that the breaker opened and that it closes now.
--
-- ARGV     1 name of this opening, 2 the host whose breaker it is, 3 why it opened,
--          4 how long ago (ms)
-- Keys     fleet:breaker:, fleet:bus
-- Returns  1 when it was said now, 0 when it was said before
-- Invariants
--   An opening is told once, however often the probe is repeated because its answer was lost.

if not redis.call('SET', 'fleet:breaker:' .. ARGV[1], NOW, 'NX', 'PX', 3600000) then return 0 end
local seconds = ARGV[4] / 1000
emit('breaker_opened', {'breaker', 'broker', 'host', ARGV[2], 'elapsed_s', seconds,
  'reason', 'the broker was lost: ' .. ARGV[3]})
emit('breaker_closed', {'breaker', 'broker', 'host', ARGV[2], 'elapsed_s', seconds,
  'reason', 'the broker is back'})
return 1

-- Keep an alert of one machine that is over, beside those of the fleet.
--
-- ARGV
--   record    the alert (JSON object: id, key, name, agent, reason, state, opened, ended, host)
--   past_max  most alerts that are kept after they are over
-- Keys     fleet:alerts:past
-- Returns  how many are kept
-- Invariants
--   Bounded, in number and in time.

redis.call('LPUSH', 'fleet:alerts:past', ARG.record)
redis.call('LTRIM', 'fleet:alerts:past', 0, ARG.past_max - 1)
redis.call('PEXPIRE', 'fleet:alerts:past', 7 * 86400000)
return redis.call('LLEN', 'fleet:alerts:past')

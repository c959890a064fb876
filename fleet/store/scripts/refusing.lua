-- Count what Celery's way in refuses, so that refusals which last become an alert and single ones do not.
--
-- ARGV
--   gap_ms  refusals this far apart are not of one series
-- Keys     fleet:refusing
-- Returns  how many the present series has
-- Invariants
--   Holds numbers only: what was refused is on the bus, or in the log of its worker.

local last, since = unpack(redis.call('HMGET', 'fleet:refusing', 'last_ms', 'since_ms'))
if not last or NOW - tonumber(last) > tonumber(ARG.gap_ms) then
  redis.call('DEL', 'fleet:refusing')
  since = NOW
end
redis.call('HSET', 'fleet:refusing', 'since_ms', since, 'last_ms', NOW)
redis.call('PEXPIRE', 'fleet:refusing', 2 * ARG.gap_ms)
return redis.call('HINCRBY', 'fleet:refusing', 'count', 1)

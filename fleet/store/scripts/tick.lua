-- Begin a periodic job, or record that it ran.
--
-- ARGV
--   job
--   verb       begin | end
--   period_ms  with begin: for how long nobody else begins
-- Keys     fleet:turn:, fleet:beat, fleet:starting
-- Returns  1, or 0 when another has begun the job in this period
-- Invariants
--   One of several beats does the work of a period, also after a step back of the clock.

if ARG.verb == 'begin' then
  return once('fleet:turn:' .. ARG.job, ARG.period_ms) and 1 or 0
end
redis.call('HDEL', 'fleet:starting', '|beat')
redis.call('HSET', 'fleet:beat', ARG.job, string.format('%.3f', NOW / 1000))
return 1

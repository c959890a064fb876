-- Count one dispatch that a tool requests, and answer whether the limit of a minute allows it.
--
-- ARGV
--   caller      an agent, or `token:` and an id
--   per_minute
-- Keys     fleet:asked:
-- Returns  0 when it is allowed | milliseconds until the next request is
-- Invariants
--   The count ends a minute after its first; what is refused does not prolong it.

local key = 'fleet:asked:' .. ARG.caller
if count_in_minute(key) <= tonumber(ARG.per_minute) then return 0 end
return math.max(1, redis.call('PTTL', key))

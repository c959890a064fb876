-- Count one dispatch that is asked for by a tool, and say whether it may be: so many in a minute.
--
-- ARGV     1 caller: an agent, or `token:` and an id; 2 how many in a minute
-- Keys     fleet:asked:
-- Returns  0 when it may | milliseconds until it may ask again
-- Invariants
--   The count ends a minute after its first; what is refused does not prolong it.

local key = 'fleet:asked:' .. ARGV[1]
if count_in_minute(key) <= tonumber(ARGV[2]) then return 0 end
return math.max(1, redis.call('PTTL', key))

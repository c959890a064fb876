-- Keep a hold for another time to live.
--
-- ARGV     1 lock, 2 id of the hold, 3 time to live (ms)
-- Keys     fleet:lock:holds:
-- Returns  1 while it is the caller's, else 0
-- Invariants
--   A hold that has ended never comes back.

local key = 'fleet:lock:holds:' .. ARGV[1]
local till = redis.call('HGET', key, ARGV[2])
if not till or tonumber(till) <= NOW then return 0 end
redis.call('HSET', key, ARGV[2], NOW + ARGV[3])
if redis.call('PTTL', key) < tonumber(ARGV[3]) then redis.call('PEXPIRE', key, ARGV[3]) end
return 1

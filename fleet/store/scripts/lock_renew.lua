-- Renew a hold.
--
-- ARGV
--   lock
--   id      of the hold
--   ttl_ms
-- Keys     fleet:lock:holds:
-- Returns  1 while it is the caller's, else 0
-- Invariants
--   A hold that has ended never comes back.

local key, id, ttl = 'fleet:lock:holds:' .. ARG.lock, ARG.id, tonumber(ARG.ttl_ms)
local till = redis.call('HGET', key, id)
if not till or tonumber(till) <= NOW then return 0 end
redis.call('HSET', key, id, NOW + ttl)
ttl = ttl + KEY_GRACE_MS
if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
return 1

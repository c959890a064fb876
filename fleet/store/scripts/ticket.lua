-- A ticket stands for an API token, once and for a short time.
--
-- ARGV     1 'issue' | 'use', 2 hash of the ticket, 3 token id, 4 how long it is good (ms)
-- Keys     fleet:ticket:
-- Returns  the token's id; false when the ticket was used, is too old or never was one
-- Invariants
--   Used at most once, whichever API process asks.

local key = 'fleet:ticket:' .. ARGV[2]
if ARGV[1] == 'issue' then
  redis.call('SET', key, ARGV[3], 'PX', ARGV[4])
  return ARGV[3]
end
local id = redis.call('GET', key)
redis.call('DEL', key)
return id

-- A ticket stands for an API token, once and for a short time.
--
-- ARGV
--   verb      'issue' | 'use'
--   digest    of the ticket
--   token_id  to issue: '' stands for nobody in particular
--   ttl_ms    to issue
-- Keys     fleet:ticket:
-- Returns  the token's id; false when the ticket was used, is too old or never was one
-- Invariants
--   Used at most once, whichever API process asks.

local key = 'fleet:ticket:' .. ARG.digest
if ARG.verb == 'issue' then
  redis.call('SET', key, ARG.token_id, 'PX', ARG.ttl_ms)
  return ARG.token_id
end
local id = redis.call('GET', key)
redis.call('DEL', key)
return id

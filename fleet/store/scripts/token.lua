-- Create or revoke an API token, and notify every API process of the change.
--
-- ARGV
--   verb      'create' | 'revoke'
--   token_id
--   record    JSON, or '' to revoke
-- Keys     fleet:tokens, fleet:access_news
-- Returns  the record as it is kept, or false when there was nothing to change
-- Invariants
--   A token's scopes never change. A revoked one stays, so that it cannot be made again and the
--   fleet goes on asking for tokens. The record and the news are one step: who reads both the bus
--   and the news at once sees no entry of the bus that is later than a revocation without it.

local verb, id = ARG.verb, ARG.token_id
local kept = redis.call('HGET', 'fleet:tokens', id)
local record
if verb == 'create' then
  if kept then return false end
  record = cjson.decode(ARG.record)
  record.created_ms = NOW
else
  if not kept then return false end
  record = cjson.decode(kept)
  if record.revoked_ms and record.revoked_ms ~= cjson.null then return false end
  record.revoked_ms = NOW
end
local text = cjson.encode(record)
redis.call('HSET', 'fleet:tokens', id, text)
redis.call('XADD', 'fleet:access_news', 'MAXLEN', '~', 1000, '*', verb, id)
return text

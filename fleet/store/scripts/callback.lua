-- Store the answer that a service gives by a call of its own, and wake the turn that waits for it.
--
-- ARGV
--   dispatch_id
--   media_type
--   body         content
--   digest       of media type and body
-- Keys     fleet:dispatch:, fleet:callback:, fleet:called:
-- Returns  'kept' | 'duplicate' | 'answered' when another answer is kept | 'unknown'
--          | 'unasked' when its event was not posted yet | the state it is in, where it has ended
-- Invariants
--   The first answer stays, also when no worker lives that waits for it. What is ended takes none.
--   A repeated call (its reply was lost) changes nothing, and is a duplicate.

local id, key = ARG.dispatch_id, 'fleet:callback:' .. ARG.dispatch_id
local state = redis.call('HGET', dispatch_key(id), 'state')
if not state then return 'unknown' end
local round, digest = unpack(redis.call('HMGET', key, 'round', 'digest'))
if digest then return digest == ARG.digest and 'duplicate' or 'answered' end
if state ~= 'active' and state ~= 'queued' and state ~= 'retrying' then return state end
if not round then return 'unasked' end

redis.call('HSET', key, 'type', ARG.media_type, 'body', ARG.body, 'digest', ARG.digest)
-- For a moment: a later turn reads the answer before it waits.
redis.call('RPUSH', 'fleet:called:' .. id, ARG.digest)
redis.call('PEXPIRE', 'fleet:called:' .. id, 10000)
return 'kept'

-- Keep the answer that a service gives by a call of its own, and wake the turn that waits for it.
--
-- ARGV     1 dispatch id, 2 media type, 3 body (content), 4 digest of both
-- Keys     fleet:dispatch:, fleet:callback:, fleet:called:
-- Returns  'kept' | 'duplicate' | 'answered' when another answer is kept | 'unknown'
--          | 'unasked' when its event was not posted yet | the state it is in, where it has ended
-- Invariants
--   The first answer stays, also when no worker lives that waits for it. What is ended takes none.
--   A repeated call (its reply was lost) changes nothing, and is a duplicate.

local id, key = ARGV[1], 'fleet:callback:' .. ARGV[1]
local state = redis.call('HGET', dispatch_key(id), 'state')
if not state then return 'unknown' end
local round, digest = unpack(redis.call('HMGET', key, 'round', 'digest'))
if digest then return digest == ARGV[4] and 'duplicate' or 'answered' end
if state ~= 'active' and state ~= 'queued' and state ~= 'retrying' then return state end
if not round then return 'unasked' end

redis.call('HSET', key, 'type', ARGV[2], 'body', ARGV[3], 'digest', ARGV[4])
-- For a moment: who comes later looks before it waits.
redis.call('RPUSH', 'fleet:called:' .. id, ARGV[4])
redis.call('PEXPIRE', 'fleet:called:' .. id, 10000)
return 'kept'

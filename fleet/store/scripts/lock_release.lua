-- Release a hold, or withdraw it wherever it is by now: held, waiting or still on its way here.
--
-- ARGV
--   lock
--   id         of the hold
--   refuse_ms  '' to release, else the time for which the id is refused
-- Keys     fleet:lock:holds:, fleet:lock:line:, fleet:lock:ticket:, fleet:lock:wake:
-- Returns  1 when it was held until now, else 0
-- Invariants
--   Ends the caller's own hold and no other. When nobody holds the lock any more, or the line has
--   changed, the first in line is woken.

local lock, id, refuse = ARG.lock, ARG.id, ARG.refuse_ms
local key, line = 'fleet:lock:holds:' .. lock, 'fleet:lock:line:' .. lock
local holds = living(key)
local held = holds[id]
holds[id] = nil
local free = next(holds) == nil
if free then redis.call('DEL', key) elseif held then redis.call('HDEL', key, id) end

if refuse ~= '' then
  redis.call('SET', 'fleet:lock:ticket:' .. id, 'gone', 'PX', refuse)
  redis.call('ZREM', line, id)
  -- Its own question may still be blocked: it is to end now.
  local list = 'fleet:lock:wake:' .. id
  redis.call('RPUSH', list, 1)
  redis.call('PEXPIRE', list, 1000)
end
if free or refuse ~= '' then
  local head = first(line, '')
  if head then wake(head) end
end
return held and 1 or 0

-- Acquire a lock, or a place in its line; requested again with the same id until acquired or withdrawn.
--
-- ARGV
--   lock
--   id       of this hold
--   group    holds of one group share the lock
--   manner   what a hold does when its group has the lock: 'joins' past the line (a turn that asks again),
--            'queues' (a reader) or is 'alone' (a writer)
--   ttl_ms
--   place    place in line from an earlier answer, or '0'
--   keep_ms  time for which the place of a silent waiter is kept
--   wakes    '1' to wake a caller that blocks and does not read this answer, else ''
-- Keys     fleet:lock:holds:, fleet:lock:line:, fleet:lock:ticket:, fleet:lock:wake:, fleet:lock:token
-- Returns  {1, token, 1 when it had it before} | {-1} given up
--          | {0, place, ms after which to ask again at the latest}
-- Invariants
--   All living holds of a lock are of one group; each ends by itself at its own time.
--   Only the first in line that lives takes a lock, so one who comes never overtakes one who waits.
--   A waiter that was passed over because it was silent gets its old place back.
--   The token grows with each new group of holds. A repeated question of a holder (its answer was
--   lost) gets the same token; one that was given up never takes anything, however late it arrives.

local lock, id, group, manner = ARG.lock, ARG.id, ARG.group, ARG.manner
local ttl, place, keep = tonumber(ARG.ttl_ms), tonumber(ARG.place), ARG.keep_ms
local key, line = 'fleet:lock:holds:' .. lock, 'fleet:lock:line:' .. lock
local ticket = 'fleet:lock:ticket:' .. id
if redis.call('GET', ticket) == 'gone' then return {-1} end

local holds, owner, token, last = living(key)
local free = last == 0
local shares = not free and owner == group

if place > 0 then redis.call('ZADD', line, place, id) end
local head = first(line, id)
local turn = not head or head == id
if holds[id] or (shares and manner == 'joins') or ((free or shares) and turn) then
  if free then token = next_number() end
  redis.call('HSET', key, id, NOW + ttl, 'group', group, 'token', token)
  redis.call('PEXPIRE', key, math.max(last - NOW, ttl) + KEY_GRACE_MS)
  if head then
    redis.call('ZREM', line, id)
    redis.call('DEL', ticket, 'fleet:lock:wake:' .. id)
  end
  if manner == 'queues' then
    -- Whoever is next may be a reader too; a writer looks and waits on.
    local next = first(line, '')
    if next then wake(next) end
  end
  if ARG.wakes == '1' then wake(id) end
  return {1, tonumber(token), holds[id] and 1 or 0}
end

if place == 0 then
  place = redis.call('ZSCORE', line, id) or next_number()
  redis.call('ZADD', line, place, id)
end
redis.call('SET', ticket, 'waits', 'PX', keep)
redis.call('PEXPIRE', line, 10000)
if free then
  wake(head)
  return {0, tonumber(place), redis.call('PTTL', 'fleet:lock:ticket:' .. head) + 1}
end
return {0, tonumber(place), last - NOW + 1}

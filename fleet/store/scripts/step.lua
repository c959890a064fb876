-- Journal one finished step of a running turn, so that a later attempt need not repeat it.
--
-- ARGV     1 dispatch id, 2 fence, 3 attempt, 4 step key, 5 entry (JSON)
-- Keys     fleet:dispatch:, fleet:journal:, fleet:fences
-- Returns  {'kept', why to cancel or ''} | {'fenced', ''}
-- Invariants
--   Only the attempt that runs now writes. Writing the same step again changes nothing.

local id, fence, attempt, step, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local state, agent, owner, current, cancel = unpack(redis.call('HMGET', dispatch_key(id),
  'state', 'agent', 'fence', 'attempt', 'cancel'))
if state ~= 'active' or owner ~= fence or current ~= attempt or not newest(agent, fence) then
  return {'fenced', ''}
end
if entry ~= '' then redis.call('HSET', 'fleet:journal:' .. id, step, entry) end
return {'kept', cancel or ''}

-- Journal one finished step of a running turn, so that a later attempt need not repeat it.
--
-- ARGV     1 dispatch id, 2 fence, 3 attempt, 4 step key, 5 entry (JSON),
--          6 how what the step handed over was verified: 'echo' | 'timeout_fallback', or '' where it
--          handed nothing over, 7 why
-- Keys     fleet:dispatch:, fleet:journal:, fleet:fences, fleet:totals, fleet:bus
-- Returns  {'kept', why to cancel or ''} | {'fenced', ''}
-- Invariants
--   Only the attempt that runs now writes. Writing the same step again changes nothing.
--   A verification is told and counted once for each entry that is written.

local id, fence, attempt, step, entry, verification, reason = unpack(ARGV)
local state, agent, owner, current, cancel = unpack(redis.call('HMGET', dispatch_key(id),
  'state', 'agent', 'fence', 'attempt', 'cancel'))
if state ~= 'active' or owner ~= fence or current ~= attempt or not newest(agent, fence) then
  return {'fenced', ''}
end
if entry ~= '' then
  local journal = 'fleet:journal:' .. id
  if verification ~= '' and redis.call('HGET', journal, step) ~= entry then
    tell_injected(read_hash(dispatch_key(id)), verification, reason)
  end
  redis.call('HSET', journal, step, entry)
end
return {'kept', cancel or ''}

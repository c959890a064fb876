-- Journal one finished step of a running turn, so that a later attempt need not repeat it, and count
-- what it has cost.
--
-- ARGV     1 dispatch id, 2 fence, 3 attempt, 4 step key, 5 entry (JSON),
--          6 tokens in, 7 tokens out, 8 dollars, 9 how what the step handed over was verified: 'echo' |
--          'timeout_fallback', or '' where it handed nothing over, 10 why
-- With     _spend
-- Keys     fleet:dispatch:, fleet:journal:, fleet:fences, fleet:totals, fleet:spend:, fleet:bus
-- Returns  {'kept', why to cancel or ''} | {'fenced', ''}
-- Invariants
--   Only the attempt that runs now writes. Writing the same step again changes nothing.
--   What was paid counts at once, whatever becomes of the turn.
--   A verification is told and counted once for each entry that is written.

local id, fence, attempt, step, entry = unpack(ARGV, 1, 5)
local verification, reason = ARGV[9], ARGV[10]
local state, agent, owner, current, cancel = unpack(redis.call('HMGET', dispatch_key(id),
  'state', 'agent', 'fence', 'attempt', 'cancel'))
if state ~= 'active' or owner ~= fence or current ~= attempt or not newest(agent, fence) then
  return {'fenced', ''}
end
if entry == '' or redis.call('HGET', 'fleet:journal:' .. id, step) == entry then
  return {'kept', cancel or ''}
end
redis.call('HSET', 'fleet:journal:' .. id, step, entry)
pay(id, agent, {unpack(ARGV, 6, 8)})
if verification ~= '' then tell_injected(read_hash(dispatch_key(id)), verification, reason) end
return {'kept', cancel or ''}

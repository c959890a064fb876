-- Journal one finished step of a running turn, so that a later attempt need not repeat it, and count
-- what it has cost.
--
-- ARGV     1 dispatch id, 2 fence, 3 attempt, 4 step key, 5 entry (JSON),
--          6 tokens in, 7 tokens out, 8 dollars
-- With     _spend
-- Keys     fleet:dispatch:, fleet:journal:, fleet:fences, fleet:totals, fleet:spend:
-- Returns  {'kept', why to cancel or ''} | {'fenced', ''}
-- Invariants
--   Only the attempt that runs now writes. Writing the same step again changes nothing.
--   What was paid counts at once, whatever becomes of the turn.

local id, fence, attempt, step, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local state, agent, owner, current, cancel = unpack(redis.call('HMGET', dispatch_key(id),
  'state', 'agent', 'fence', 'attempt', 'cancel'))
if state ~= 'active' or owner ~= fence or current ~= attempt or not newest(agent, fence) then
  return {'fenced', ''}
end
if entry == '' or redis.call('HGET', 'fleet:journal:' .. id, step) == entry then
  return {'kept', cancel or ''}
end
redis.call('HSET', 'fleet:journal:' .. id, step, entry)
for place, name in ipairs({'tokens_in', 'tokens_out', 'usd'}) do
  local cost = tonumber(ARGV[5 + place])
  if cost > 0 then
    local before = tonumber(redis.call('HGET', dispatch_key(id), name) or 0)
    charge(agent, name, before, before + cost)
    redis.call('HSET', dispatch_key(id), name,
      string.format(name == 'usd' and '%.9f' or '%.0f', before + cost))
  end
end
return {'kept', cancel or ''}

-- Publish pieces of what a running turn says, for whoever listens. They are content, so they are
-- never on the bus, and they are kept for minutes only: the outcome is the truth.
--
-- ARGV     1 dispatch id, 2 fence, 3 attempt, 4 most pieces kept, 5 how long the newest is kept (ms),
--          then for each piece: place behind it, place before it, kind 'text' | 'retry' | 'fallback',
--          step, offset in the step's text, text (content)
-- Keys     fleet:dispatch:, fleet:fences, fleet:speech:
-- Returns  1, or 0 when this attempt is no longer the current one
-- Invariants
--   Only the attempt that runs now, under the newest token, speaks.
--   A piece's id is `<attempt>-<place behind it>`: ids only grow, and a repeated call (its reply was
--   lost) writes nothing twice.

local id, fence, attempt = ARGV[1], ARGV[2], ARGV[3]
local state, agent, owner, current = unpack(redis.call('HMGET', dispatch_key(id),
  'state', 'agent', 'fence', 'attempt'))
if state ~= 'active' or owner ~= fence or current ~= attempt or not newest(agent, fence) then
  return 0
end

local key, said = 'fleet:speech:' .. id, 0
local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
if last then
  local number, place = string.match(last[1], '^(%d+)-(%d+)$')
  if number == attempt then said = tonumber(place) end
end
for i = 6, #ARGV, 6 do
  if tonumber(ARGV[i]) > said then
    redis.call('XADD', key, 'MAXLEN', '~', ARGV[4], attempt .. '-' .. ARGV[i],
      'from', ARGV[i + 1], 'kind', ARGV[i + 2], 'step', ARGV[i + 3], 'offset', ARGV[i + 4],
      'text', ARGV[i + 5])
  end
end
redis.call('PEXPIRE', key, ARGV[5])
return 1

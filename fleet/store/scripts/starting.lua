-- Record which agents are about to be started, before the first of their workers begins.
--
-- ARGV
--   names...  agents, and `|beat`
-- With     _starting
-- Keys     fleet:starting, fleet:lease:
-- Returns  how many of them are being started now
-- Invariants
--   One that has a live holder is not being started. A host that starts again and again gains no more
--   time by it: a name counts from its first start, and again when twice that time has passed.

local starting = 0
for i = ARG.names + 1, ARG.names + ARGV[ARG.names] do
  local name = ARGV[i]
  if not lease_name(name) then
    local since = tonumber(redis.call('HGET', 'fleet:starting', name) or 0)
    if NOW - since >= 2 * START_MS then redis.call('HSET', 'fleet:starting', name, NOW) end
    if is_starting(name) then starting = starting + 1 end
  end
end
redis.call('PEXPIRE', 'fleet:starting', 2 * START_MS)
return starting

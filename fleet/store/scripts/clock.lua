-- Look at the server's clock, and take a step of it back.
--
-- ARGV
--   machine    name of a clock that nobody sets, the caller's machine's since its boot
--   before_ms  its time just before the server was asked for its own ...
--   after_ms   ... and when the answer was there
--   server_ms  that answer
--   insists    '1' to believe the server where the machine knows nothing of the time before, else ''
-- Keys     fleet:clock
-- Returns  1, or 0 when nothing is sure: look again
-- Invariants
--   The ledger's time never goes back, whatever the server's clock does.
--   While looks follow each other the server's clock is believed, so several machines take one step back
--   once, and a machine that was halted moves nothing. After a pause the machine's clock tells a step
--   from a silence, unless the clock went back during one; an answer that was late for a while widens
--   what it believes, and is no step.
--   An offset goes back to 0, slower than a lease's margin, so that times are the world's again.

-- A longer way makes no memory. What the machine and the ledger may differ by: a little at first, and
-- more with time, for clocks drift.
local PROMPT_MS, SLACK_MS, DRIFT, SHRINK = 500, 2000, 0.03, 0.02
-- A machine that was silent for so long is forgotten when another comes.
local MEMORY_MS = 3600000

local before, after, server = tonumber(ARG.before_ms), tonumber(ARG.after_ms), tonumber(ARG.server_ms)
-- The clock was set in between, or the caller was stopped.
if math.abs(RAW - server) > STALE_MS then return 0 end
local offset, last = tonumber(looked[2] or 0), nil
-- By how much the offset went back to 0 so far: no machine has seen that by its own clock.
local shrunk = tonumber(redis.call('HGET', 'fleet:clock', 'shrunk') or 0)

-- The offset by which the ledger's time goes on as the machine's did; nil when the machine cannot tell.
local function offset_of_machine()
  local boot, at, then_shrunk = string.match(redis.call('HGET', 'fleet:clock', ARG.machine) or '',
    '(%d+) (%d+) ?(-?%d*)')
  if not boot or before < tonumber(boot) then return nil end
  at = at - (shrunk - (tonumber(then_shrunk) or shrunk))
  local slack = SLACK_MS + (after - boot) * DRIFT
  local least, most = at + before - boot, at + after - boot
  -- It stood still while others saw time pass.
  if most + slack < last then return nil end
  local now = server + offset
  if now < least - slack then return least - server end
  if now > most + slack then return most - server end
  return offset
end

if looked[1] then
  last = looked[1] + offset
  if IS_STALE then
    local found = offset_of_machine()
    if not found and ARG.insists ~= '1' then return 0 end
    offset = math.max(found or offset, last - server)
  end
  local most = math.floor(math.max(RAW + offset - last, 0) * SHRINK)
  local smaller = offset > 0 and math.max(offset - most, 0) or math.min(offset + most, 0)
  shrunk = shrunk + offset - smaller
  offset = smaller
end
redis.call('HSET', 'fleet:clock', 'raw', RAW, 'offset', string.format('%.0f', offset), 'shrunk',
  string.format('%.0f', shrunk))

if after - before > PROMPT_MS then return 1 end
local moment = string.format('%.0f %.0f %.0f', (before + after) / 2, server + offset, shrunk)
if redis.call('HSET', 'fleet:clock', ARG.machine, moment) == 1 then
  local known = redis.call('HGETALL', 'fleet:clock')
  for i = 1, #known, 2 do
    local at = string.match(known[i + 1], '%d+ (%d+)')
    if at and RAW + offset - at > MEMORY_MS then redis.call('HDEL', 'fleet:clock', known[i]) end
  end
end
return 1

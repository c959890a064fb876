-- The breakers before the models, shared by the whole fleet: a model that fails is left alone for a
-- while, and so is a key that a model refuses; then one call tries.
--
-- ARGV
--   verb             'ask' | 'tell'; the arguments from `outcome` on are for 'tell' only
--   agent
--   model            name of the breaker for failures: the model, at its address
--   key              name of the breaker for refusals: the model, at its address, for one key
--   call_ms          longest time of the call; for 'ask' only
--   outcome          'ok' | 'failed' | 'limited' | 'denied'
--   reason
--   retry_after_ms   least wait that the provider asked for
--   failures_max     failures that open the breaker ...
--   window_ms        ... within this time
--   first_wait_ms
--   longest_wait_ms
-- Keys     fleet:providers, fleet:bus
-- Returns  ask: 0 when the call may be made, else how long none may (ms); tell: 0, or where the
--          provider asked for a wait, or a trial failed, how long none may be made now (ms)
-- Invariants
--   Failures count for everybody who calls the model; refusals ('limited' and 'denied') only for those
--   with the same key. Neither closes another model, or another key.
--   A key that is denied opens at once, and so does what its provider asks to be left alone for long.
--   When a wait is over one call in the fleet tries; the others wait until it has ended, or for as
--   long as it may take. The end of a call that began before does not lengthen the wait.
--   An open breaker names the agents that it has stopped: a resume of one of them clears it.

-- A shorter wait than this is the caller's alone: no breaker opens for it.
local LONG_MS = 30000
-- `fleet.turn.providers` has the same.
local UNUSED_MS = 3600000

local agent, names = ARG.agent, {ARG.model, ARG.key}

local function read(name)
  local text = redis.call('HGET', 'fleet:providers', name)
  local breaker = text and cjson.decode(text) or {failures = 0, since = NOW, wait = 0, till = 0, probe = 0}
  breaker.agents = breaker.agents or {}
  return breaker
end

local function announce(kind, name, reason)
  emit(kind, {'name', name, 'reason', reason, 'agent', agent})
end

local function write(name, breaker)
  redis.call('HSET', 'fleet:providers', name, cjson.encode(breaker))
  redis.call('PEXPIRE', 'fleet:providers', 86400000)
end

-- Of a model, or a key, that nobody uses any more nothing is kept.
local function forget_unused()
  local found = redis.call('HGETALL', 'fleet:providers')
  for at = 1, #found, 2 do
    local breaker = cjson.decode(found[at + 1])
    if NOW - math.max(breaker.since, breaker.till) > UNUSED_MS then
      redis.call('HDEL', 'fleet:providers', found[at])
      if breaker.wait > 0 then announce('breaker_closed', found[at], 'nobody uses it any more') end
    end
  end
end

if ARG.verb == 'ask' then
  local longest = 0
  for _, name in ipairs(names) do
    local breaker = read(name)
    if breaker.wait > 0 then
      local left = math.max(breaker.till - NOW, breaker.probe - NOW)
      longest = math.max(longest, left)
      if left > 0 and not breaker.agents[agent] then
        breaker.agents[agent] = true
        write(name, breaker)
      end
    end
  end
  if longest > 0 then return longest end
  for _, name in ipairs(names) do
    local breaker = read(name)
    if breaker.wait > 0 then
      breaker.probe = NOW + tonumber(ARG.call_ms)
      write(name, breaker)
    end
  end
  return 0
end

local verdict, reason, asked = ARG.outcome, ARG.reason, tonumber(ARG.retry_after_ms)
if verdict == 'ok' then
  for _, name in ipairs(names) do
    if redis.call('HEXISTS', 'fleet:providers', name) == 1 then
      if read(name).wait > 0 then announce('breaker_closed', name, 'it answers again') end
      redis.call('HDEL', 'fleet:providers', name)
    end
  end
  return 0
end

forget_unused()
local name = verdict == 'failed' and ARG.model or ARG.key
local breaker, first = read(name), tonumber(ARG.first_wait_ms)
if breaker.wait > 0 then
  breaker.agents[agent] = true
  local trial = NOW >= breaker.till
  if trial then
    breaker.wait = math.min(breaker.wait * 2, tonumber(ARG.longest_wait_ms))
    breaker.till, breaker.probe = NOW + math.max(breaker.wait, asked), 0
  end
  write(name, breaker)
  return (trial or asked > 0) and breaker.till - NOW or 0
end
if NOW - breaker.since > tonumber(ARG.window_ms) then breaker.failures, breaker.since = 0, NOW end
breaker.failures = breaker.failures + 1
local long = asked >= math.min(first, LONG_MS)
if verdict == 'denied' or long or breaker.failures >= tonumber(ARG.failures_max) then
  breaker.wait, breaker.reason, breaker.agents[agent] = first, reason, true
  breaker.till = NOW + math.max(breaker.wait, asked)
  announce('breaker_opened', name, reason)
end
write(name, breaker)
return asked > 0 and breaker.wait > 0 and breaker.till - NOW or 0

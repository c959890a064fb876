-- The breakers before the providers of models, shared by the whole fleet: a provider that fails is
-- left alone for a while, then tried by one call.
--
-- ARGV
--   verb             'ask' | 'tell'; the arguments from `outcome` on are for 'tell' only
--   agent
--   provider
--   call_ms          longest time of the call; for 'ask' only
--   outcome          'ok' | 'failed' | 'denied'
--   reason
--   retry_after_ms   least wait that the provider asked for
--   failures_max     failures that open the breaker ...
--   window_ms        ... within this time
--   first_wait_ms
--   longest_wait_ms
-- Keys     fleet:providers, fleet:bus
-- Returns  ask: 0 when the call may be made, else how long none may (ms); tell: 0, or after a trial
--          that failed how long it is left alone now (ms)
-- Invariants
--   A provider that denies an agent is open for that agent alone, and at once: its key is wrong.
--   When a wait is over one call in the fleet tries; the others wait until it has ended, or for as
--   long as it may take. The end of a call that began before does not lengthen the wait.

local agent, provider = ARG.agent, ARG.provider
local names = {provider, agent .. '/' .. provider}

local function read(name)
  local text = redis.call('HGET', 'fleet:providers', name)
  return text and cjson.decode(text) or {failures = 0, since = NOW, wait = 0, till = 0, probe = 0}
end

local function write(name, breaker)
  redis.call('HSET', 'fleet:providers', name, cjson.encode(breaker))
  -- Of a provider that nobody calls any more nothing is kept.
  redis.call('PEXPIRE', 'fleet:providers', 86400000)
end

local function announce(kind, name, reason)
  local fields = {'name', name, 'reason', reason}
  if name ~= provider then plus(fields, {'agent', agent}) end
  emit(kind, fields)
end

if ARG.verb == 'ask' then
  local longest = 0
  for _, name in ipairs(names) do
    local breaker = read(name)
    if breaker.wait > 0 then longest = math.max(longest, breaker.till - NOW, breaker.probe - NOW) end
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

local name = verdict == 'denied' and names[2] or provider
local breaker = read(name)
if breaker.wait > 0 then
  if NOW >= breaker.till then
    breaker.wait = math.min(breaker.wait * 2, tonumber(ARG.longest_wait_ms))
    breaker.till, breaker.probe = NOW + math.max(breaker.wait, asked), 0
    write(name, breaker)
    return breaker.till - NOW
  end
  return 0
end
if NOW - breaker.since > tonumber(ARG.window_ms) then breaker.failures, breaker.since = 0, NOW end
breaker.failures = breaker.failures + 1
if verdict == 'denied' or breaker.failures >= tonumber(ARG.failures_max) then
  breaker.wait, breaker.reason = tonumber(ARG.first_wait_ms), reason
  breaker.till = NOW + math.max(breaker.wait, asked)
  announce('breaker_opened', name, reason)
end
write(name, breaker)
return 0

-- The ledger's clock. Put before every script.
--
-- Keys     fleet:clock
-- Time is the server's, in milliseconds, and `offset` more; no client's clock decides anything. When the
-- server's clock is set forth or back, `clock.lua` takes that back with the offset. A script that writes
-- answers STALE and does nothing while the last look at the clock is not about now: nobody knows then
-- whether time has passed or the clock was set. The caller looks, by `clock.lua`, and repeats.
-- What expires by itself goes by the server's own clock. So leases and locks have an end in the ledger's
-- time, and are there as keys for longer.

local clock = redis.call('TIME')
local RAW = clock[1] * 1000 + math.floor(clock[2] / 1000)
local looked = redis.call('HMGET', 'fleet:clock', 'raw', 'offset')
local NOW = RAW + tonumber(looked[2] or 0)
-- A smaller step counts as time. The first is as long as a client waits for an answer.
local STALE_MS, BACK_MOST_MS = 5000, 1000
local IS_STALE = not looked[1] or RAW - looked[1] > STALE_MS or looked[1] - RAW > BACK_MOST_MS

-- How much longer the key of a lease or lock lives: more than any step forth.
local KEY_GRACE_MS = 86400000

-- Keep a key no longer than `ms` from now: it has more time left only where the clock went back.
local function clamp(key, ms)
  if redis.call('PTTL', key) > tonumber(ms) then redis.call('PEXPIRE', key, ms) end
end

-- True for the first call for a key, and again when `ms` have passed since.
local function once(key, ms)
  clamp(key, ms)
  return redis.call('SET', key, NOW, 'NX', 'PX', ms) and true or false
end

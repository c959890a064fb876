-- The workers of pools. Put after `_lib.lua` in the scripts whose legend says `With`.
--
-- Keys     fleet:pool:
-- `fleet:pool:<pool>` has a row for each worker: its processes, when its row is over, since when it is
-- there, its host and pid.

local function pool_key(pool) return 'fleet:pool:' .. pool end

local function write_worker(pool, worker, processes, until_ms, since_ms, holder)
  redis.call('HSET', pool_key(pool), worker,
    string.format('%s %.0f %.0f %s', processes, until_ms, since_ms, holder))
end

-- The row of a worker: processes, end, beginning, holder; nil without one.
local function read_worker(pool, worker)
  local row = redis.call('HGET', pool_key(pool), worker)
  if not row then return nil end
  local processes, until_ms, since_ms, holder = string.match(row, '^(%d+) (%d+) (%d+) (.*)$')
  return tonumber(processes), tonumber(until_ms), tonumber(since_ms), holder
end

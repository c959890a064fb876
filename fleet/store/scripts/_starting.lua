-- Agents that are being started. Put after `_lib.lua` in the scripts whose legend says `With`.
--
-- Keys     fleet:starting
-- `fleet up` and `fleet host` name their agents before their workers begin; `lease.lua` takes the name
-- off again. Until then it is no fault that the agent has no worker, for START_MS at most. Beat is named
-- `|beat`, which no agent can be, and its first tick takes the name off.

-- More than a hundred workers need on a busy machine.
local START_MS = 300000

-- True while `name` is being started.
local function is_starting(name)
  local since = redis.call('HGET', 'fleet:starting', name)
  return since and NOW - tonumber(since) < START_MS
end

-- Why attempts failed. Put after `_lib.lua` in the scripts whose legend says `With`.
--
-- Keys     fleet:failures:
-- A failure is JSON that Python makes, with content in it; here it is kept with its attempt and time.

-- The newest failures of a dispatch that are kept.
local FAILURES_MAX = 5

local function keep_failure(record, failure)
  local key = 'fleet:failures:' .. record.id
  redis.call('RPUSH', key, record.attempt .. ' ' .. string.format('%.0f', NOW) .. ' ' .. failure)
  redis.call('LTRIM', key, -FAILURES_MAX, -1)
end

local function keep_loss(record, reason)
  keep_failure(record, cjson.encode({stage = 'worker_lost', reason = reason}))
end

-- How a deadline ends what waits. Put after `_chain.lua` in the scripts whose legend says `With`.
--
-- Keys     fleet:agent:, and those of `finish` in `_lib.lua`
-- What its agent was stopped by while the deadline passed, such as its budget, is a part of the reason.

local function expire(record, keep_ms)
  local hold_ms, why = unpack(redis.call('HMGET', agent_key(record.agent), 'hold_ms', 'hold_reason'))
  local stopped = why and tonumber(hold_ms or 0) >= tonumber(record.deadline_ms)
  local reason = 'its deadline passed while it waited' .. (stopped and ': ' .. why or '')
  finish(record, 'expired', {'stage', 'expired', 'error', reason},
    {'stage', 'expired', 'reason', reason}, keep_ms)
end

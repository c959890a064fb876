-- Put an alert on the bus.
--
-- ARGV
--   name
--   reason
--   state    'open' or 'closed' of a lasting condition, else ''
--   once_ms  time in which the same alert is given only once, 0 for always
-- Keys     fleet:alerted:, fleet:bus
-- Returns  the entry's id | false when it was said lately
-- Invariants
--   A reason holds no prompt text and no secret.

local name, reason, state, once_ms = ARG.name, ARG.reason, ARG.state, ARG.once_ms
local key = 'fleet:alerted:' .. name .. ':' .. redis.sha1hex(reason)
if tonumber(once_ms) > 0 and not once(key, once_ms) then
  return false
end
local fields = {'name', name, 'reason', reason}
if state ~= '' then plus(fields, {'state', state}) end
return emit('alert', fields)

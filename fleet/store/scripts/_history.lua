-- What was said in a session. Put after `_lib.lua` in the scripts whose legend says `With`.
--
-- Keys     fleet:history:
-- A message is JSON text that Python makes and checks; here it is kept, measured and forgotten.

local function history_key(session) return 'fleet:history:' .. redis.sha1hex(session) end

-- The newest messages, oldest first.
local function recall(session, messages_max)
  if session == '' or messages_max < 1 then return {} end
  return redis.call('LRANGE', history_key(session), -messages_max, -1)
end

-- Add what was said and what was answered, and forget from the old end what is too much. An event
-- that several agents answer was said once.
local function remember(session, said, answered, messages_max, bytes_max, keep_ms)
  local key = history_key(session)
  if not redis.call('LPOS', key, said) then redis.call('RPUSH', key, said) end
  redis.call('RPUSH', key, answered)
  local messages = redis.call('LRANGE', key, -messages_max, -1)
  local bytes, kept = 0, 0
  for i = #messages, 1, -1 do
    bytes = bytes + #messages[i]
    if bytes > bytes_max then break end
    kept = kept + 1
  end
  if kept == 0 then redis.call('DEL', key) return end
  redis.call('LTRIM', key, -kept, -1)
  redis.call('PEXPIRE', key, keep_ms)
end

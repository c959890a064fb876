-- The messages of a session. Put after `_lib.lua` in the scripts whose legend says `With`.
--
-- Keys     fleet:history:
-- A message is JSON text that Python makes and checks; here it is kept, measured and forgotten.

local function history_key(session) return 'fleet:history:' .. redis.sha1hex(session) end

-- The newest messages, oldest first.
local function recall(session, messages_max)
  if session == '' or messages_max < 1 then return {} end
  return redis.call('LRANGE', history_key(session), -messages_max, -1)
end

-- Add the messages of user and agent, and forget from the old end what is too much. An event that
-- several agents answer is added once.
local function remember(session, user_message, agent_message, messages_max, bytes_max, keep_ms)
  local key = history_key(session)
  if not redis.call('LPOS', key, user_message) then redis.call('RPUSH', key, user_message) end
  redis.call('RPUSH', key, agent_message)
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

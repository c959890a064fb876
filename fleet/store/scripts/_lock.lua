-- Shared by the lock scripts: put before each in place of `_lib.lua`, of which they would use next
-- to nothing; making its functions anew in every call costs as much as a whole lock script does.
--
-- Keys     fleet:lock:holds:, fleet:lock:line:, fleet:lock:ticket:, fleet:lock:wake:, fleet:lock:token
-- A lock has holds, each with an end of its own, and a line of those who wait. A waiter has a ticket
-- that says it was heard of lately, and a list on which it blocks until it is woken.

-- A waiter that is called asks at once: the question already waits in its connection's buffer. This
-- is the time for one that is just between two questions, and how long a dead one stops the line.
local CALL_MS = 250

-- A number that only grows. It is no less than the time, so a store that lost its last writes, or has an
-- older backup, gives none again.
local function next_number()
  local last = tonumber(redis.call('GET', 'fleet:lock:token') or 0)
  local number = string.format('%.0f', math.max(last + 1, NOW))
  redis.call('SET', 'fleet:lock:token', number)
  return number
end

-- The holds of a lock that have not ended, by id; its group and token; when the last of them ends.
local function living(key)
  local flat, holds, group, token, last = redis.call('HGETALL', key), {}, nil, nil, 0
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    if name == 'group' then group = value
    elseif name == 'token' then token = value
    elseif tonumber(value) > NOW then
      holds[name] = value
      last = math.max(last, tonumber(value))
    else redis.call('HDEL', key, name) end
  end
  return holds, group, token, last
end

-- The first in line that was heard of lately, or is the one who asks; dead ones leave the line.
local function first(line, asking)
  while true do
    local id = redis.call('ZRANGE', line, 0, 0)[1]
    if not id or id == asking or redis.call('EXISTS', 'fleet:lock:ticket:' .. id) == 1 then
      return id
    end
    redis.call('ZREM', line, id)
  end
end

local function wake(id)
  local list = 'fleet:lock:wake:' .. id
  if redis.call('EXISTS', list) == 0 then
    redis.call('RPUSH', list, 1)
    redis.call('PEXPIRE', list, 1000)
    redis.call('PEXPIRE', 'fleet:lock:ticket:' .. id, CALL_MS)
  else
    clamp(list, 1000)
    clamp('fleet:lock:ticket:' .. id, 1000)
  end
end

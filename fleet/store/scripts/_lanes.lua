-- Who is next. Put after `_lib.lua` in the scripts whose legend says `With`.
--
-- Keys     fleet:due:, fleet:agent:, fleet:dispatch:
-- A more urgent lane goes first, and in a lane the older one. So that nothing starves, the oldest of
-- all is taken instead, though others are more urgent, when it has waited for the time of ageing and
-- the agent has taken none in this way for as long. A person thus waits for one such turn at most in
-- that time, however much background work there is.

-- One step of priority in a dispatch's order; see `create` in `_chain.lua`.
local LANE = 4398046511104

-- The id of the agent's next dispatch, or nil, and whether it is its age that makes it the next.
local function pick(agent, ageing_ms)
  local due = due_key(agent)
  local first, order = unpack(redis.call('ZRANGE', due, 0, 0, 'WITHSCORES'))
  -- One that was handed back goes before everything, with an order below zero.
  if not first or tonumber(order) < 0 then return first end
  local lane = math.floor(tonumber(order) / LANE)
  local last = redis.call('ZRANGE', due, -1, -1, 'WITHSCORES')[2]
  if math.floor(tonumber(last) / LANE) == lane then return first end
  local aged_ms = tonumber(redis.call('HGET', agent_key(agent), 'aged_ms') or 0)
  if NOW - aged_ms < ageing_ms then return first end
  local oldest, seq = first, tonumber(order) % LANE
  for other = lane + 1, 9 do
    local id, at = unpack(redis.call('ZRANGEBYSCORE', due, string.format('%.0f', other * LANE),
      string.format('(%.0f', (other + 1) * LANE), 'WITHSCORES', 'LIMIT', 0, 1))
    if id and tonumber(at) % LANE < seq then oldest, seq = id, tonumber(at) % LANE end
  end
  local since = tonumber(redis.call('HGET', dispatch_key(oldest), 'accepted_ms') or NOW)
  if oldest == first or NOW - since < ageing_ms then return first end
  return oldest, true
end

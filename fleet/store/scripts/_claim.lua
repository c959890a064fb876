-- What a claim is. Put after `_lib.lua`, `_history.lua`, `_chain.lua`, `_expire.lua` and `_lanes.lua` in the scripts
-- whose legend says `With`.
--
-- Keys     fleet:turn_fence, fleet:dispatch:, fleet:payload:, fleet:due:, fleet:sessions, fleet:deadlines,
--          fleet:agent:
-- The right of an attempt: `fence`, `lease`, `holder`, `call`, and in a pool `pool` and `worker`.

-- The answer for a dispatch that is claimed, with `history_max` messages of its session at most.
local function claimed(record, history_max)
  local joined = {}
  for id in string.gmatch(record.joined or '', '%S+') do
    local event = redis.call('HGET', dispatch_key(id), 'event') or ''
    joined[#joined + 1] = redis.call('GET', 'fleet:payload:' .. event) or ''
  end
  local answer = {'claimed', record.id, tonumber(record.attempt), record.turn_fence,
    redis.call('GET', 'fleet:payload:' .. record.event) or '', record.cancel or '',
    recall(record.session, history_max), joined}
  return record.chain_id and plus(answer, chain_prompt(record)) or answer
end

-- Begin an attempt under a right.
local function start(record, right)
  local attempt = tonumber(record.attempt) + 1
  record.attempt = tostring(attempt)
  local last = tonumber(redis.call('GET', 'fleet:turn_fence') or 0)
  record.turn_fence = string.format('%.0f', math.max(last + 1, NOW))
  redis.call('SET', 'fleet:turn_fence', record.turn_fence)
  local fields = {'attempt', attempt, 'fence', right.fence or record.turn_fence, 'lease', right.lease,
    'started_ms', NOW, 'holder', right.holder, 'call', right.call, 'turn_fence', record.turn_fence}
  if right.pool then
    plus(fields, {'pool', right.pool, 'worker', right.worker})
  elseif record.pool then
    redis.call('HDEL', dispatch_key(record.id), 'pool', 'worker')
  end
  if record.state == 'active' then
    redis.call('HSET', dispatch_key(record.id), unpack(fields))
  else
    move(record, 'active', fields)
  end
  if record.session ~= '' then
    redis.call('HSET', 'fleet:sessions', session_key(record.session), record.id)
  end
  tally(record.agent, 'attempts')
  emit('dispatch_started', who(record))
end

-- The agent's next runnable dispatch, taken off its list; nil when there is none. One whose deadline has
-- passed expires.
local function take_next(agent, ageing_ms, keep_ended_ms)
  -- Bounded: each round ends a dispatch or drops a stale entry.
  for _ = 1, 1000 do
    local id, aged = pick(agent, ageing_ms)
    if not id then return nil end
    local record = read_hash(dispatch_key(id))
    redis.call('ZREM', due_key(agent), id)
    if record.state == 'queued' then
      if NOW < tonumber(record.deadline_ms) then
        redis.call('ZREM', 'fleet:deadlines', id)
        if aged then redis.call('HSET', agent_key(agent), 'aged_ms', NOW) end
        return record
      end
      expire(record, keep_ended_ms)
    end
  end
end

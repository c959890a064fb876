-- How a dispatch of a pool is claimed. Put after `_lib.lua`, `_claim.lua`, `_loss.lua` and `_pool_turns.lua` in the
-- scripts whose legend says `With`.
--
-- Keys     fleet:lost, fleet:claim:, fleet:rests, fleet:pool:, fleet:turns, fleet:served

-- Claim under `lease`, as `pool_claim.lua` says, whose other arguments are in `how`. `chained`: the caller goes on
-- without a wake-up, and one is taken off the queue.
local function claim_in_pool(how, lease, chained)
  local pool, history_max = how.pool, tonumber(how.history_max)

  local function answer(record, unclean)
    local found = claimed(record, history_max)
    table.remove(found, 1)
    return plus({record.agent, epoch(), unclean}, found)
  end

  local id, was_unclean = string.match(redis.call('GET', 'fleet:claim:' .. lease) or '', '(%S+) (%d)')
  local before = read_hash(dispatch_key(id or ''))
  if before.lease == lease then return before.state == 'active' and answer(before, was_unclean) or {} end
  if redis.call('EXISTS', 'fleet:lost') == 1 then return {} end

  -- Taken off the line, to come back when a turn of it ends, or its rest.
  local function set_aside(agent, until_ms)
    redis.call('ZREM', ready_key(pool), agent)
    if until_ms then redis.call('ZADD', 'fleet:rests', until_ms, agent) end
  end

  local processes = tonumber(redis.call('HGET', 'fleet:pool:' .. pool, '|processes') or 1)
  local most = math.max(1, math.floor(processes * tonumber(how.max_share)))

  -- The turn of a worker that the agent had before the pool, and that is dead.
  local function end_left_behind(agent, id)
    end_stopped(agent)
    redis.call('HDEL', agent_key(agent), 'active')
    local record = read_hash(dispatch_key(id))
    if record.state == 'active' then lose_turn(record, how.losses_max, how.keep_dead_ms) end
  end

  -- True when the agent may begin a turn now.
  local function may_begin(agent, its_pool, parallel)
    if its_pool ~= pool or redis.call('SCARD', running_key(agent)) >= math.min(parallel, most) then
      set_aside(agent)
    elseif lease_name(agent) then
      set_aside(agent, NOW + 1000)
    else
      local paused, hold, active = unpack(redis.call('HMGET', agent_key(agent), 'paused', 'hold_ms', 'active'))
      if active then end_left_behind(agent, active) end
      if paused then set_aside(agent)
      elseif tonumber(hold or 0) > NOW then set_aside(agent, hold)
      else return true end
    end
    return false
  end

  -- The agent goes on in the line where it has more work and room.
  local function go_on(agent, served, parallel)
    local next = redis.call('ZRANGE', due_key(agent), 0, 0)[1]
    if next and redis.call('SCARD', running_key(agent)) < math.min(parallel, most) then
      redis.call('ZADD', ready_key(pool), served, agent)
      push('pool.' .. pool, next)
    else
      redis.call('ZREM', ready_key(pool), agent)
    end
  end

  -- Bounded: each round takes an agent off the line, or claims.
  for _ = 1, 1000 do
    local agent, place = unpack(redis.call('ZRANGE', ready_key(pool), 0, 0, 'WITHSCORES'))
    if not agent then return {} end
    local its_pool, parallel, weight = pool_of(agent)
    if may_begin(agent, its_pool, parallel) then
      local record = take_next(agent, tonumber(how.ageing_ms), how.keep_ended_ms)
      if record then
        start(record, {lease = lease, holder = how.holder, call = lease, pool = pool, worker = how.worker})
        redis.call('SADD', running_key(agent), record.id)
        redis.call('ZADD', 'fleet:turns', NOW + tonumber(how.ttl_ms), record.id)
        local unclean = tostring(redis.call('HDEL', agent_key(agent), 'unclean'))
        redis.call('SET', 'fleet:claim:' .. lease, record.id .. ' ' .. unclean, 'PX', 60000)
        local served = string.format('%.9f', tonumber(place) + 1 / weight)
        redis.call('HSET', 'fleet:served', pool, place)
        redis.call('HSET', agent_key(agent), 'served', served, 'claimed_ms', NOW)
        go_on(agent, served, parallel)
        if chained and TEMPLATE ~= '' then redis.call('RPOP', 'pool.' .. pool) end
        return answer(record, unclean)
      end
      set_aside(agent)
    end
  end
  return {}
end

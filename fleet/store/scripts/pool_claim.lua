-- Claim the next runnable dispatch of any agent of a pool.
--
-- ARGV
--   pool
--   worker         name of the worker's process
--   holder         'host:pid'
--   lease          a random name of this turn's lease
--   ttl_ms
--   max_share      most of the pool's processes for one agent, from above 0 to 1
--   chained        '1' for a child that has just ended a turn and needed no wake-up, else '0'
--   keep_ended_ms
--   history_max    most messages of the session's history in the answer
--   ageing_ms      see `_lanes.lua`
--   losses_max
--   keep_dead_ms
-- With     _history, _announce, _chain, _expire, _lanes, _failures, _claim, _loss, _pool_turns
-- Keys     fleet:lost, fleet:ready:, fleet:pools, fleet:pool:, fleet:rests, fleet:served, fleet:claim:,
--          fleet:running:, fleet:turns, fleet:lease:, fleet:turn_fence, fleet:agent:, fleet:due:,
--          fleet:dispatch:, fleet:payload:, fleet:counts, fleet:session:, fleet:sessions, fleet:deadlines,
--          fleet:retry, fleet:ended, fleet:event:, fleet:history:, fleet:totals, fleet:bus, pool.<pool>
-- Returns  {agent, epoch, '1' when programs of an earlier turn may still run, and what `claim.lua` answers
--          behind 'claimed'} | {}
-- Invariants
--   At most `parallel` active dispatches of an agent, and one of a session. None of an agent whose own worker
--   has a live lease.
--   Agents take turns: the one that had the fewest, by its weight, is next. No agent has more than `max_share`
--   of the processes, but one.
--   The turn's lease is this attempt's alone; its fence grows with every attempt in the fleet.
--   While an agent with work and room stands in the line, there is a wake-up for it, or a child that claims.
--   A repeated call of the same lease (its reply was lost) answers the same.

local pool, history_max = ARG.pool, tonumber(ARG.history_max)

local function answer(record)
  local unclean = redis.call('HDEL', agent_key(record.agent), 'unclean')
  local found = claimed(record, history_max)
  table.remove(found, 1)
  return plus({record.agent, epoch(), tostring(unclean)}, found)
end

local before = read_hash(dispatch_key(redis.call('GET', 'fleet:claim:' .. ARG.lease) or ''))
if before.lease == ARG.lease then return before.state == 'active' and answer(before) or {} end
if redis.call('EXISTS', 'fleet:lost') == 1 then return {} end

-- Taken off the line, to come back when a turn of it ends, or its rest.
local function set_aside(agent, until_ms)
  redis.call('ZREM', ready_key(pool), agent)
  if until_ms then redis.call('ZADD', 'fleet:rests', until_ms, agent) end
end

local processes = tonumber(redis.call('HGET', 'fleet:pool:' .. pool, '|processes') or 1)
local most = math.max(1, math.floor(processes * tonumber(ARG.max_share)))

-- The turn of a worker that the agent had before the pool, and that is dead.
local function end_left_behind(agent, id)
  end_stopped(agent)
  redis.call('HDEL', agent_key(agent), 'active')
  local record = read_hash(dispatch_key(id))
  if record.state == 'active' then lose_turn(record, ARG.losses_max, ARG.keep_dead_ms) end
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
    local record = take_next(agent, tonumber(ARG.ageing_ms), ARG.keep_ended_ms)
    if record then
      start(record, {lease = ARG.lease, holder = ARG.holder, call = ARG.lease, pool = pool, worker = ARG.worker})
      redis.call('SADD', running_key(agent), record.id)
      redis.call('ZADD', 'fleet:turns', NOW + tonumber(ARG.ttl_ms), record.id)
      redis.call('SET', 'fleet:claim:' .. ARG.lease, record.id, 'PX', 60000)
      local served = string.format('%.9f', tonumber(place) + 1 / weight)
      redis.call('HSET', 'fleet:served', pool, place)
      redis.call('HSET', agent_key(agent), 'served', served, 'claimed_ms', NOW)
      go_on(agent, served, parallel)
      if ARG.chained == '1' and TEMPLATE ~= '' then redis.call('RPOP', 'pool.' .. pool) end
      return answer(record)
    end
    set_aside(agent)
  end
end
return {}

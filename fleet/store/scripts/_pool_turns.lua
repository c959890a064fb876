-- The turns that pools run. Put after `_lib.lua` and `_loss.lua` in the scripts whose legend says `With`.
--
-- Keys     fleet:turns, fleet:running:, fleet:rests, fleet:dispatch:
-- A turn in a pool has a lease of its own: its fence and random name on the record, its end in
-- `fleet:turns`. Its worker renews all its turns in one call.

-- The process of a turn is dead: another attempt follows as the agent's next turn, or none. One that was
-- stopped has ended in the ledger before.
local function lose_turn(record, losses_max, keep_dead_ms)
  if record.state ~= 'active' then return end_stopped_turn(record) end
  redis.call('HSET', agent_key(record.agent), 'unclean', 1)
  if count_loss(record, losses_max, keep_dead_ms) then
    leave_agent(record)
    put_first(record, 'its worker was lost')
  end
end

-- The turns whose leases are over have lost their workers.
local function lose_overdue(limit, losses_max, keep_dead_ms)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'fleet:turns', '-inf', NOW, 'LIMIT', 0, limit)) do
    redis.call('ZREM', 'fleet:turns', id)
    local record = read_hash(dispatch_key(id))
    if record.pool then lose_turn(record, losses_max, keep_dead_ms) end
  end
end

-- The agents whose rest is over.
local function end_rests(limit)
  for _, agent in ipairs(redis.call('ZRANGEBYSCORE', 'fleet:rests', '-inf', NOW, 'LIMIT', 0, limit)) do
    redis.call('ZREM', 'fleet:rests', agent)
    local pool, parallel = pool_of(agent)
    if pool then make_ready(agent, pool, parallel) end
  end
end

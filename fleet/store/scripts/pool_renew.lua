-- Renew the leases of all turns of a pool's worker, and see that its idle processes have work.
--
-- ARGV
--   pool
--   worker           name of the worker's process
--   holder           'host:pid'
--   processes        how many it has
--   idle             how many of them have nothing to do
--   ttl_ms
--   beat_silence_ms  see `renew.lua`
--   losses_max
--   keep_dead_ms
--   limit            most turns and agents to look after in this call
--   turns...         TurnArgs
-- TurnArgs
--   dispatch_id
--   lease
-- With     _announce, _chain, _failures, _starting, _loss, _pool_turns, _pool_workers
-- Keys     fleet:pool:, fleet:pools, fleet:turns, fleet:running:, fleet:rests, fleet:ready:, fleet:dispatch:,
--          fleet:agent:, fleet:due:, fleet:served, fleet:deadlines, fleet:counts, fleet:session:, fleet:sessions,
--          fleet:dead, fleet:event:, fleet:failures:, fleet:totals, fleet:beat, fleet:alerted:, fleet:bus, pool.<pool>
-- Returns  {ids of turns that are not the worker's any more, ids that a wake-up was pushed for, or is to be
--          published for, names of the pool's other workers}
-- Invariants
--   A turn whose lease went to another attempt is never taken back. One whose lease ran out while nobody took
--   it (the broker was away) goes on.
--   A turn whose lease is over has lost its worker. The loss is counted once.
--   No process idles for a lost wake-up while an agent stands in the pool's line.

local pool, worker, limit = ARG.pool, ARG.worker, tonumber(ARG.limit)
local until_ms, lost, at = NOW + tonumber(ARG.ttl_ms), {}, ARG.turns + 1
for _ = 1, tonumber(ARGV[ARG.turns]) do
  local turn
  turn, at = TurnArgs(at)
  local lease, agent, attempt, fence, committed = unpack(redis.call('HMGET', dispatch_key(turn.dispatch_id),
    'lease', 'agent', 'attempt', 'fence', 'committed'))
  if lease == turn.lease and redis.call('SISMEMBER', running_key(agent), turn.dispatch_id) == 1 then
    redis.call('ZADD', 'fleet:turns', until_ms, turn.dispatch_id)
  elseif lease ~= turn.lease or committed ~= attempt .. '/' .. fence then
    -- Neither does it run, nor has it just ended.
    lost[#lost + 1] = turn.dispatch_id
  end
end

local _, _, since = read_worker(pool, worker)
write_worker(pool, worker, ARG.processes, until_ms, since or NOW, ARG.holder)
if not since then emit('agent_online', {'agent', 'pool.' .. pool, 'holder', ARG.holder}) end
local others, processes = {}, 0
for _, name in ipairs(redis.call('HKEYS', pool_key(pool))) do
  local its_processes, its_end, _, holder = read_worker(pool, name)
  if its_end and its_end <= NOW then
    redis.call('HDEL', pool_key(pool), name)
    emit('agent_offline', {'agent', 'pool.' .. pool, 'holder', holder, 'reason', 'its lease ran out'})
  elseif its_end then
    processes = processes + its_processes
    if name ~= worker then others[#others + 1] = name end
  end
end
redis.call('HSET', pool_key(pool), '|processes', processes)

lose_overdue(limit, ARG.losses_max, ARG.keep_dead_ms)
end_rests(limit)

-- Beat leaves a sign of life in the store. A worker that sees none gives an alert.
local heard = math.max(since or NOW, 1000 * tonumber(redis.call('HGET', 'fleet:beat', 'health') or 0))
if NOW - heard > tonumber(ARG.beat_silence_ms) and not is_starting('|beat') then
  alert_once('beat_dead', '', 'no beat for ' .. math.floor((NOW - heard) / 1000)
    .. ' s: retries, expiry and repair stand still')
end

local wanted, ids = math.min(tonumber(ARG.idle), redis.call('ZCARD', ready_key(pool))), {}
if wanted > 0 and TEMPLATE ~= '' then wanted = wanted - redis.call('LLEN', 'pool.' .. pool) end
for i = 1, wanted do
  local agent = redis.call('ZRANGE', ready_key(pool), i - 1, i - 1)[1]
  local id = redis.call('ZRANGE', due_key(agent), 0, 0)[1]
  if id then
    push('pool.' .. pool, id)
    ids[#ids + 1] = id
  end
end
return {lost, ids, others}

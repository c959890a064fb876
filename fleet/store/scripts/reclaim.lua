-- Repair what no worker can, for one agent or for the retries that are due; safe to repeat.
--
-- ARGV
--   agent          '' for the fleet-wide part
--   keep_ended_ms
--   limit          most dispatches to move in this call
--   untouched_ms   time without progress before an alert
--   removed_ms     time without a holder after which the turn of an agent that is not configured any
--                  more is dead, or '' for one that is
--   keep_dead_ms
--   losses_max
-- With     _announce, _chain, _expire, _requeue, _failures, _starting, _loss, _pool_turns
-- Keys     fleet:lost, fleet:retry, fleet:deadlines, fleet:quiet, fleet:due:, fleet:agent:, fleet:lease:, fleet:dispatch:,
--          fleet:counts, fleet:ended, fleet:dead, fleet:event:, agent.<agent>, fleet:alerted:,
--          fleet:session:, fleet:sessions, fleet:rang:, fleet:beat, fleet:back, fleet:totals,
--          fleet:failures:, fleet:bus
-- Returns  fleet-wide: {retried, expired}; for an agent: {notified, offline, id to publish for or ''}
-- Invariants
--   Bounded per call. A dispatch that waits its turn or runs long under a live lease is not touched.
--   Where the queue is not in this store, the caller is asked to publish for an agent that has work and
--   does none, at most every 2 s.
--   After a silence, in which the whole fleet or its store was away, no deadline passes and no queue is
--   called stuck until agents had time to come back; nor while a store that went back stands still.
--   No queue of an agent that is being started is called stuck, nor of one that has just begun.
--   A wake-up is pushed only where the queue has fewer than there are runnable dispatches, and none for
--   an agent that is not configured any more: what waits for it waits for an operator.

local agent, limit = ARG.agent, tonumber(ARG.limit)

-- Nobody will take up the turn that the last holder of the agent left: it ends, and its session goes on.
local function end_removed()
  local id, left_ms = unpack(redis.call('HMGET', agent_key(agent), 'active', 'left_ms'))
  local record = read_hash(dispatch_key(id or ''))
  if record.state ~= 'active' or NOW - tonumber(left_ms or 0) < tonumber(ARG.removed_ms) then return end
  local reason = 'its worker is gone, and the agent was removed from the configuration'
  tally(agent, 'failed.worker_lost')
  emit('dispatch_failed', plus(who(record), {'stage', 'worker_lost', 'reason', reason,
    'elapsed_s', (NOW - tonumber(record.started_ms)) / 1000, 'will_retry', 'false'}))
  keep_loss(record, reason)
  finish(record, 'dead', {'stage', 'worker_lost', 'error', reason},
    {'stage', 'worker_lost', 'reason', reason}, ARG.keep_dead_ms)
end

if agent == '' then
  local retried, expired = 0, 0
  if is_away() then redis.call('SET', 'fleet:back', NOW, 'PX', BACK_MS) end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'fleet:retry', '-inf', NOW, 'LIMIT', 0, limit)) do
    local record = read_hash(dispatch_key(id))
    redis.call('ZREM', 'fleet:retry', id)
    if record.state == 'retrying' then
      try_again(record, {})
      retried = retried + 1
    end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'fleet:quiet', '-inf', NOW, 'LIMIT', 0, limit)) do
    redis.call('ZREM', 'fleet:quiet', id)
    local record = read_hash(dispatch_key(id))
    if record.state == 'queued' then offer(record) end
  end
  -- Of a pool whose workers are all gone.
  lose_overdue(limit, ARG.losses_max, ARG.keep_dead_ms)
  end_rests(limit)
  local waits = is_coming_back() or redis.call('EXISTS', 'fleet:lost') == 1
  local over = waits and {} or redis.call('ZRANGEBYSCORE', 'fleet:deadlines', '-inf', NOW,
    'LIMIT', 0, limit)
  for _, id in ipairs(over) do
    local record = read_hash(dispatch_key(id))
    redis.call('ZREM', 'fleet:deadlines', id)
    local turn = record.joined_to and redis.call('HGET', dispatch_key(record.joined_to), 'state')
    if turn == 'active' or turn == 'retrying' or turn == 'announcing' then
      -- Its turn goes on, and so will its end come.
      redis.call('ZADD', 'fleet:deadlines', NOW + 60000, id)
    elseif record.state == 'queued' or record.state == 'retrying' or record.state == 'parked' then
      expire(record, ARG.keep_ended_ms)
      expired = expired + 1
    end
  end
  return {retried, expired}
end

local live = lease_name(agent) ~= nil
local offline = 0
if not live then
  redis.call('DEL', lease_key(agent))
  end_stopped(agent)
end
if not live and redis.call('HGET', agent_key(agent), 'holder') then
  redis.call('HDEL', agent_key(agent), 'holder')
  redis.call('HSET', agent_key(agent), 'left_ms', NOW)
  emit('agent_offline', {'agent', agent, 'reason', 'its lease ran out'})
  offline = 1
end
if ARG.removed_ms ~= '' then
  if not live and not is_coming_back() and redis.call('EXISTS', 'fleet:lost') == 0 then end_removed() end
  return {0, offline, ''}
end

local state = redis.call('HMGET', agent_key(agent), 'active', 'paused', 'claimed_ms', 'hold_ms')
local hold = tonumber(state[4] or 0)
local rests = state[2] or hold > NOW or redis.call('EXISTS', 'fleet:lost') == 1
local waiting = redis.call('ZRANGE', due_key(agent), 0, limit - 1)
local first = waiting[1]
if not live and state[1] then table.insert(waiting, 1, state[1]) end
local notified = rests and 0 or notify_for_all(agent, waiting)

-- Consumption, not a ping: work is there, nothing runs, nothing was taken for too long.
if first and not rests and not (live and state[1]) and not is_coming_back()
  and not is_starting(agent) then
  local since = math.max(tonumber(redis.call('HGET', dispatch_key(first), 'queued_ms') or NOW),
    tonumber(redis.call('HGET', lease_key(agent), 'since_ms') or 0), tonumber(state[3] or 0), hold)
  if NOW - since > tonumber(ARG.untouched_ms) then
    alert_once('stuck_queue', agent, live and 'its worker holds the lease but takes no work'
      or 'no worker serves the agent though work waits')
  end
end

local ask = ''
if TEMPLATE == '' and not rests and not (live and state[1]) and (state[1] or first)
  and once('fleet:rang:' .. agent, 2000) then
  ask = state[1] or first
end
return {notified, offline, ask}

-- A turn that lost its process. Put after `_lib.lua`, `_announce.lua`, `_chain.lua` and `_failures.lua` in the
-- scripts whose legend says `With`.
--
-- Keys     fleet:dispatch:, fleet:failures:, fleet:deadlines

-- The server counts whole seconds: a start less than two seconds after the attempt is not noticed. It
-- counts a step of its clock, too: a start that may be no start is none.
local function store_began_after(record)
  local up_s = string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(-?%d+)')
  return math.min(NOW, RAW) - 1000 * (tonumber(up_s) + 1) > tonumber(record.started_ms)
end

-- Count the lost attempt of an active dispatch; true where another attempt follows. At `losses_max` it
-- is dead-lettered, so that a poison event cannot kill workers for ever. The attempt does not count where
-- the store itself was started after it: a worker ends when it cannot renew its lease, which is no fault of
-- the event.
local function count_loss(record, losses_max, keep_dead_ms)
  local spent = store_began_after(record) and 0 or 1
  if spent == 0 then redis.call('HINCRBY', dispatch_key(record.id), 'attempt_base', 1) end
  local losses = tonumber(record.losses) + spent
  local retry = losses < tonumber(losses_max) and NOW < tonumber(record.deadline_ms)
  local elapsed = (NOW - tonumber(record.started_ms)) / 1000
  local reason = spent == 1 and 'the worker died in mid-turn'
    or 'the worker was lost while the store was away'
  redis.call('HSET', dispatch_key(record.id), 'losses', losses, 'stage', 'worker_lost',
    'error', reason)
  tally(record.agent, 'failed.worker_lost')
  emit('dispatch_failed', plus(who(record), {'stage', 'worker_lost', 'reason', reason,
    'elapsed_s', elapsed, 'will_retry', tostring(retry)}))
  keep_loss(record, reason)
  if not retry then
    finish(record, 'dead', {}, {'stage', 'worker_lost', 'reason',
      reason .. ' (' .. losses .. ' times)'}, keep_dead_ms)
  end
  return retry
end

-- Queue an active dispatch as its agent's next one.
local function put_first(record, reason)
  move(record, 'queued')
  redis.call('ZADD', 'fleet:deadlines', record.deadline_ms, record.id)
  -- Below every lane: an interrupted dispatch runs before any other.
  offer(record, tonumber(record.order) - 2 ^ 50)
  emit('dispatch_queued', plus(who(record), {'reason', reason}))
end

-- The same without a counted loss: an attempt that a stop cut short does not count.
local function hand_back(record)
  redis.call('HINCRBY', dispatch_key(record.id), 'attempt_base', 1)
  put_first(record, 'handed back by a stopping worker')
end

-- Claim the agent's next runnable dispatch, in ledger order, whatever id the wake-up has.
--
-- ARGV
--   agent
--   fence
--   lease
--   holder
--   losses_max     losses at which a dispatch is dead-lettered
--   keep_dead_ms
--   keep_ended_ms
--   call           a name of this call
--   history_max    most messages of the session's history in the answer
--   ageing_ms      see `_lanes.lua`
-- With     _holder, _history, _announce, _chain, _expire, _lanes, _failures
-- Keys     fleet:lost, fleet:lease:, fleet:fences, fleet:turn_fence, fleet:agent:, fleet:due:, fleet:dispatch:, fleet:payload:, fleet:journal:,
--          fleet:counts, fleet:session:, fleet:sessions, fleet:deadlines, fleet:retry, fleet:ended,
--          fleet:dead, fleet:event:, fleet:history:, fleet:failures:, fleet:totals, fleet:bus
-- Returns  {'claimed', id, attempt, the turn's fence, payload, cancel, history, payloads of the events that joined
--          it, and in a chain: what it is (JSON), what each earlier stage ended with (JSON), ...}
--          | {'idle'} | {'paused'} | {'held'} | {'fenced'}
-- Invariants
--   At most one active dispatch per agent, and one per session: an active one is taken up again
--   before any other.
--   An active one found here lost its worker: that attempt is counted as a loss, and at the cap the
--   dispatch is dead-lettered, so a poison event cannot kill workers for ever. Not so where the store itself
--   was started after the attempt was: a worker ends when it cannot renew its lease, which is no
--   fault of the event.
--   Only the holder of a live lease claims.
--   The turn's fence grows with every attempt in the fleet, so with every holder of an agent, and of a
--   session that several agents share. It is no less than the time, so a store that lost its last writes,
--   or has an older backup, gives none again.
--   Nothing starves: see `_lanes.lua`.
--   A repeated call of the same name (its reply was lost) answers the same and counts no loss.

local agent, fence, holder, call = ARG.agent, ARG.fence, ARG.holder, ARG.call
local losses_max, history_max = tonumber(ARG.losses_max), tonumber(ARG.history_max)

if lease_name(agent) ~= ARG.lease or not newest(agent, fence, ARG.lease) then
  return {'fenced'}
end

local function claimed(record)
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

-- The worker's one child asks, or another holder's: no earlier turn of the agent lives.
end_stopped(agent)
local interrupted = read_hash(dispatch_key(redis.call('HGET', agent_key(agent), 'active') or ''))
if interrupted.call == call and interrupted.state == 'active' then return claimed(interrupted) end
if redis.call('HGET', agent_key(agent), 'paused') or redis.call('EXISTS', 'fleet:lost') == 1 then
  return {'paused'}
end
if tonumber(redis.call('HGET', agent_key(agent), 'hold_ms') or 0) > NOW then return {'held'} end

local function start(record)
  local attempt = tonumber(record.attempt) + 1
  record.attempt = tostring(attempt)
  local last = tonumber(redis.call('GET', 'fleet:turn_fence') or 0)
  record.turn_fence = string.format('%.0f', math.max(last + 1, NOW))
  redis.call('SET', 'fleet:turn_fence', record.turn_fence)
  local fields = {'attempt', attempt, 'fence', fence, 'lease', ARG.lease, 'started_ms', NOW,
    'holder', holder, 'call', call, 'turn_fence', record.turn_fence}
  if record.state == 'active' then
    redis.call('HSET', dispatch_key(record.id), unpack(fields))
  else
    move(record, 'active', fields)
  end
  redis.call('HSET', agent_key(agent), 'active', record.id, 'claimed_ms', NOW)
  if record.session ~= '' then
    redis.call('HSET', 'fleet:sessions', session_key(record.session), record.id)
  end
  tally(agent, 'attempts')
  emit('dispatch_started', who(record))
  return claimed(record)
end

-- The server counts whole seconds: a start less than two seconds after the attempt is not noticed. It
-- counts a step of its clock, too: a start that may be no start is none.
local function store_began_after(record)
  local up_s = string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(-?%d+)')
  return math.min(NOW, RAW) - 1000 * (tonumber(up_s) + 1) > tonumber(record.started_ms)
end

if interrupted.state == 'active' then
  local spent = store_began_after(interrupted) and 0 or 1
  if spent == 0 then redis.call('HINCRBY', dispatch_key(interrupted.id), 'attempt_base', 1) end
  local losses = tonumber(interrupted.losses) + spent
  local retry = losses < losses_max and NOW < tonumber(interrupted.deadline_ms)
  local elapsed = (NOW - tonumber(interrupted.started_ms)) / 1000
  local reason = spent == 1 and 'the worker died in mid-turn'
    or 'the worker was lost while the store was away'
  redis.call('HSET', dispatch_key(interrupted.id), 'losses', losses, 'stage', 'worker_lost',
    'error', reason)
  tally(agent, 'failed.worker_lost')
  emit('dispatch_failed', plus(who(interrupted), {'stage', 'worker_lost', 'reason', reason,
    'elapsed_s', elapsed, 'will_retry', tostring(retry)}))
  keep_loss(interrupted, reason)
  if retry then return start(interrupted) end
  finish(interrupted, 'dead', {}, {'stage', 'worker_lost', 'reason',
    reason .. ' (' .. losses .. ' times)'}, ARG.keep_dead_ms)
else
  redis.call('HDEL', agent_key(agent), 'active')
end

-- Bounded: each round ends a dispatch or drops a stale entry.
for _ = 1, 1000 do
  local id, aged = pick(agent, tonumber(ARG.ageing_ms))
  if not id then return {'idle'} end
  local record = read_hash(dispatch_key(id))
  redis.call('ZREM', due_key(agent), id)
  if record.state == 'queued' then
    if NOW < tonumber(record.deadline_ms) then
      redis.call('ZREM', 'fleet:deadlines', id)
      if aged then redis.call('HSET', agent_key(agent), 'aged_ms', NOW) end
      return start(record)
    end
    expire(record, ARG.keep_ended_ms)
  end
end
return {'idle'}

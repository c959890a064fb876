-- Shared by every script: put before each when it is loaded. Not a script of its own.
--
-- Keys are built from ids here, so one keyspace is needed, as kombu's own Redis transport needs one.

-- How much longer than its content a record stays for a sweep to count it out: 30 days, for a fleet
-- that was switched off in between.
local RECORD_GRACE_MS = 2592000000
-- How long the pieces of a turn's text stay after its end, for listeners that lag behind.
local SPEECH_GRACE_MS = 60000

-- A beat that was silent for so long was down, and with it the fleet or its store ...
local SILENCE_MS = 15000
-- ... and then there is so much time to come back before anything is given up for want of it. It is
-- known for BACK_MS when that was.
local GRACE_MS, BACK_MS = 30000, 86400000

-- A hash as a table; empty when the key does not exist.
local function read_hash(key)
  local flat = redis.call('HGETALL', key)
  local out = {}
  for i = 1, #flat, 2 do out[flat[i]] = flat[i + 1] end
  return out
end

-- The name of the agent's lease; nil when it has none, or one that is over.
local function lease_name(agent)
  local name, until_ms = unpack(redis.call('HMGET', lease_key(agent), 'lease', 'until_ms'))
  -- That of an earlier version ended as a key.
  return name and tonumber(until_ms or NOW + 1) > NOW and name or nil
end

local known_epoch
local function epoch()
  if known_epoch then return known_epoch end
  local e = redis.call('GET', 'fleet:epoch')
  if not e then
    e = string.sub(redis.sha1hex(clock[1] .. '.' .. clock[2] .. tostring(BUS_MAX)), 1, 16)
    redis.call('SET', 'fleet:epoch', e)
  end
  known_epoch = e
  return e
end

-- True until beat's first tick after a silence of the fleet.
local function is_away()
  return NOW - tonumber(redis.call('HGET', 'fleet:beat', 'reclaim') or NOW / 1000) * 1000 > SILENCE_MS
end

-- When (ms) the fleet came back last: now, while it is away. Nil if it was not away lately.
local function back_ms()
  return is_away() and NOW or tonumber(redis.call('GET', 'fleet:back') or '')
end

local function is_coming_back()
  local back = back_ms()
  return back ~= nil and NOW < back + GRACE_MS
end

-- One bus entry; `fields` is a flat list of names and values. Only a script's first one trims the bus.
local trimmed
local function emit(kind, fields)
  if trimmed then
    return redis.call('XADD', 'fleet:bus', '*', 'type', kind, 'epoch', epoch(), unpack(fields))
  end
  trimmed = true
  return redis.call('XADD', 'fleet:bus', 'MAXLEN', '~', BUS_MAX, '*',
    'type', kind, 'epoch', epoch(), unpack(fields))
end

-- The calls for a key within a minute of its first, this one included.
local function count_in_minute(key)
  clamp(key, 60000)
  local count = redis.call('INCR', key)
  if count == 1 then redis.call('PEXPIRE', key, 60000) end
  return count
end

-- An alert, at most once a minute for the same name and agent.
local function alert_once(name, agent, reason)
  if not once('fleet:alerted:' .. name .. ':' .. agent, 60000) then return end
  local fields = {'name', name, 'reason', reason}
  if agent ~= '' then fields[#fields + 1] = 'agent'; fields[#fields + 1] = agent end
  emit('alert', fields)
end

-- The bus fields that name a dispatch.
local function who(record)
  local fields = {'event_id', record.event_id, 'dispatch_id', record.id, 'agent', record.agent}
  if record.session and record.session ~= '' then
    fields[#fields + 1] = 'session'; fields[#fields + 1] = record.session
  end
  if tonumber(record.attempt or 0) > 0 then
    fields[#fields + 1] = 'attempt'; fields[#fields + 1] = record.attempt
  end
  if record.chain_id then
    for _, name in ipairs({'chain', 'chain_id', 'chain_stage', 'round', 'person', 'verdict',
      'decided_by'}) do
      if record[name] then fields[#fields + 1] = name; fields[#fields + 1] = record[name] end
    end
  end
  return fields
end

local function plus(fields, extra)
  for i = 1, #extra do fields[#fields + 1] = extra[i] end
  return fields
end

-- The states that no dispatch leaves, except by a replay.
local TERMINAL = {completed = true, dead = true, cancelled = true, expired = true, dropped = true}

-- True for a dispatch that has ended, also when it has been forgotten since.
local function over(id)
  local state = redis.call('HGET', dispatch_key(id), 'state')
  return not state or TERMINAL[state] or false
end

-- The only place where a record's state changes; `fields` are written along with it.
local function move(record, to, fields)
  if record.state then count(record.agent, record.state, -1) end
  count(record.agent, to, 1)
  redis.call('HSET', dispatch_key(record.id), 'state', to, unpack(fields or {}))
  record.state = to
end

-- Push a wake-up for the agent's next dispatch when its queue is empty. `idle`: nothing runs, so an
-- active dispatch is an interrupted one. Answers the id of that dispatch, for which the caller
-- publishes where the queue is not in this store, or ''. Those of a pool have its line instead.
local function notify_if_short(agent, idle)
  if redis.call('HEXISTS', 'fleet:pools', agent) == 1 then return '' end
  if TEMPLATE ~= '' and redis.call('LLEN', 'agent.' .. agent) > 0 then return '' end
  local state = redis.call('HMGET', agent_key(agent), 'active', 'paused', 'hold_ms')
  local next = idle and state[1] or redis.call('ZRANGE', due_key(agent), 0, 0)[1]
  if not next then return '' end
  -- An agent that rests is woken all the same for one that was stopped: the claim frees its session.
  local rests = state[2] or tonumber(state[3] or 0) > NOW
  if rests and not (next == state[1] and over(next)) then return '' end
  push('agent.' .. agent, next)
  return next
end

-- Push wake-ups until there is one for each of the agent's runnable dispatches; how many were pushed.
local function notify_for_all(agent, waiting)
  if TEMPLATE == '' then return 0 end
  local notified = 0
  for i = redis.call('LLEN', 'agent.' .. agent) + 1, #waiting do
    push('agent.' .. agent, waiting[i])
    notified = notified + 1
  end
  return notified
end

-- Sessions: the live dispatches of one conversation stand in line by acceptance, over all agents.
-- Only the first in line is in its agent's due list, and only while no turn of the session runs.
local function session_key(session) return 'fleet:session:' .. redis.sha1hex(session) end

-- Put a queued dispatch into its agent's due list and push a wake-up, unless its session is busy or
-- more of the same turn may still come.
local function offer(record, order)
  if record.quiet_ms and tonumber(record.quiet_ms) > NOW then return false end
  if record.session ~= '' then
    local line = session_key(record.session)
    local busy = redis.call('HGET', 'fleet:sessions', line)
    if busy and busy ~= record.id then return false end
    if redis.call('ZRANGE', line, 0, 0)[1] ~= record.id and busy ~= record.id then return false end
  end
  make_due(record.agent, record.id, order or record.order)
  return true
end

-- The session's turn is over: the next in line may run.
local function next_in_session(record)
  if record.session == '' then return end
  local line = session_key(record.session)
  if redis.call('HGET', 'fleet:sessions', line) == record.id then
    redis.call('HDEL', 'fleet:sessions', line)
  end
  local first = redis.call('ZRANGE', line, 0, 0)[1]
  if first then
    local head = read_hash(dispatch_key(first))
    if head.state == 'queued' then offer(head) end
  end
end

-- Its agent runs it no more; another that it runs is left alone.
local function leave_agent(record)
  local agent = record.agent
  if redis.call('SREM', running_key(agent), record.id) == 1 then
    redis.call('ZREM', 'fleet:turns', record.id)
    local pool, parallel = pool_of(agent)
    if pool then make_ready(agent, pool, parallel) end
  elseif redis.call('HGET', agent_key(agent), 'active') == record.id then
    redis.call('HDEL', agent_key(agent), 'active')
  end
end

-- The agent's turn is dead. One that was stopped has ended in the ledger before, and had its agent and
-- its session until now.
local function end_stopped(agent)
  local id = redis.call('HGET', agent_key(agent), 'active')
  if not id or not over(id) then return end
  redis.call('HDEL', agent_key(agent), 'active')
  local record = read_hash(dispatch_key(id))
  if record.id then next_in_session(record) end
end

-- The same of a turn in a pool.
local function end_stopped_turn(record)
  if not over(record.id) then return end
  leave_agent(record)
  next_in_session(record)
end

-- Record how a turn verified that its event reached a program.
local function record_injected(record, verification, reason)
  redis.call('HSET', dispatch_key(record.id), 'injected', verification)
  record.injected = verification
  tally(record.agent, 'injected.' .. verification)
  emit('delivery_verified', plus(who(record), {'name', 'terminal', 'verification', verification,
    'reason', reason}))
end

-- Off every list that a dispatch waits in; an active one has left all but its session's.
local function leave_queue(record)
  if record.state ~= 'active' then
    redis.call('ZREM', due_key(record.agent), record.id)
    redis.call('ZREM', 'fleet:retry', record.id)
    redis.call('ZREM', 'fleet:deadlines', record.id)
  end
  if record.quiet_ms then redis.call('ZREM', 'fleet:quiet', record.id) end
  if record.session ~= '' then redis.call('ZREM', session_key(record.session), record.id) end
end

-- Coalescing: several events of a session have one turn, that of the first; the others, its
-- `joined`, wait beside the lists of what may run and share its outcome.

-- One that leaves before the turn ends is no longer a part of it.
local function leave_turn(record)
  local joined, left = redis.call('HGET', dispatch_key(record.joined_to), 'joined'), {}
  if not joined then return end
  for id in string.gmatch(joined, '%S+') do
    if id ~= record.id then left[#left + 1] = id end
  end
  redis.call('HSET', dispatch_key(record.joined_to), 'joined', table.concat(left, ' '))
end

-- The first was cancelled or dropped before the turn began: the second replaces it.
local function transfer_turn(first)
  local id, rest = string.match(first.joined, '(%S+) ?(.*)')
  local record = read_hash(dispatch_key(id))
  redis.call('HDEL', dispatch_key(id), 'joined_to')
  redis.call('HSET', dispatch_key(id), 'joined', rest, 'quiet_ms', first.quiet_ms,
    'quiet_bytes', first.quiet_bytes)
  for other in string.gmatch(rest, '%S+') do
    redis.call('HSET', dispatch_key(other), 'joined_to', id)
  end
  redis.call('ZADD', session_key(record.session), record.seq, id)
  if tonumber(first.quiet_ms) > NOW then redis.call('ZADD', 'fleet:quiet', first.quiet_ms, id) end
end

-- What those that share a turn have in common when it is over.
local function of_turn(first)
  local fields = {}
  for _, name in ipairs({'stage', 'error', 'retryable', 'model', 'tier', 'elapsed_ms'}) do
    local value = redis.call('HGET', dispatch_key(first.id), name)
    if value then fields[#fields + 1] = name; fields[#fields + 1] = value end
  end
  return fields
end

-- The receivers of an end, and whether it waits for their confirmation; see `_announce.lua`.
local announces, report

-- The turn has ended: so have all that it was about, each by itself.
local function end_joined(first, to, extra, keep_ms, finish)
  local fields = of_turn(first)
  for id in string.gmatch(first.joined, '%S+') do
    local record = read_hash(dispatch_key(id))
    if to == 'completed' then
      redis.call('COPY', 'fleet:outcome:' .. first.id, 'fleet:outcome:' .. id)
    end
    if not (to == 'completed' and announces(record, fields, keep_ms)) then
      finish(record, to, fields, extra, keep_ms)
    end
  end
end

-- The other members of a fan-out, of which one died: those that wait are cancelled, those that run
-- are asked to stop at their next step.
local function cancel_others(dead, ids, keep_ms, finish)
  local reason = dead.agent .. ' failed, and routes.on_member_failure is cancel'
  for id in string.gmatch(ids, '(%S+) %S+') do
    local member = read_hash(dispatch_key(id))
    if member.state == 'queued' or member.state == 'retrying' or member.state == 'parked' then
      finish(member, 'cancelled', {'error', reason}, {'reason', reason}, keep_ms)
    elseif member.state == 'active' and not member.cancel then
      redis.call('HSET', dispatch_key(id), 'cancel', reason)
    end
  end
end

-- What the end of a stage means for its chain; `_chain.lua` says it.
local advance


-- Into a terminal state: off every work list, one terminal bus entry, retention started.
-- `fields` are set on the record; `extra` goes into the bus entry; `keep_ms` is how long it stays.
-- Its event, the parent record, takes the outcome down, and ends with the last of its members.
-- One that has ended already, perhaps by the end of another since `record` was read, stays as it is.
-- `stops`: its turn is not known to be dead and keeps agent and session; see `end_stopped`.
local function finish(record, to, fields, extra, keep_ms, stops)
  if over(record.id) then return end
  record.state = redis.call('HGET', dispatch_key(record.id), 'state')
  local began, announced = record.state == 'active', record.state == 'announcing'
  leave_queue(record)
  if not stops then leave_agent(record) end
  move(record, to, plus({'ended_ms', NOW}, fields))
  -- Completed without anybody's word that it arrived is a count of its own.
  local unverified = to == 'completed' and record.verification == 'timeout_fallback'
  tally(record.agent, 'outcome.' .. (unverified and 'unverified' or to))
  if unverified then count(record.agent, 'unverified', 1) end
  redis.call('ZADD', to == 'dead' and 'fleet:dead' or 'fleet:ended', NOW, record.id)
  emit('dispatch_' .. to, plus(who(record), extra))
  -- Before the session goes on and the event is closed: the next stage takes this one's place.
  if record.chain_id then advance(record, to, keep_ms) end
  if record.joined_to then
    leave_turn(record)
  else
    local alone = not began and (to == 'cancelled' or to == 'dropped')
    if alone and record.joined and record.joined ~= '' then
      transfer_turn(record)
      record.joined = nil
    end
    -- Where its outcome was announced first, the session has gone on already.
    if not announced and not stops then next_in_session(record) end
  end
  for _, part in ipairs({'journal', 'callback', 'failures'}) do
    redis.call('PEXPIRE', 'fleet:' .. part .. ':' .. record.id, keep_ms)
  end
  redis.call('PEXPIRE', 'fleet:speech:' .. record.id, SPEECH_GRACE_MS)
  redis.call('PEXPIRE', dispatch_key(record.id), keep_ms + RECORD_GRACE_MS)
  -- Its event stays as long as any of its dispatches.
  local event = 'fleet:event:' .. record.event
  local kept, cancel_keep_ms = unpack(redis.call('HMGET', event, 'keep_ms', 'cancel_keep_ms'))
  local keep = math.max(tonumber(keep_ms), tonumber(kept or 0))
  local left = redis.call('HINCRBY', event, 'open', -1)
  redis.call('HSET', event, 'end:' .. record.id, to, 'keep_ms', keep)
  if left > 0 then
    if to == 'dead' and cancel_keep_ms then
      cancel_others(record, redis.call('HGET', event, 'ids'), cancel_keep_ms, finish)
    end
  else
    redis.call('HSET', event, 'ended_ms', NOW)
    redis.call('PEXPIRE', event, keep)
    redis.call('PEXPIRE', 'fleet:payload:' .. record.event, keep)
  end
  if record.joined and not record.joined_to then end_joined(record, to, extra, keep_ms, finish) end
  if not announced then report(record, to, extra, keep_ms) end
end

-- Take an ended dispatch out of the books, and leave its event as it is.
local function erase(record)
  count(record.agent, record.state, -1)
  if record.state == 'completed' and record.verification == 'timeout_fallback' then
    count(record.agent, 'unverified', -1)
  end
  for _, set in ipairs({'index', 'ids', 'ended', 'dead'}) do redis.call('ZREM', 'fleet:' .. set, record.id) end
  redis.call('DEL', dispatch_key(record.id), 'fleet:journal:' .. record.id,
    'fleet:outcome:' .. record.id, 'fleet:speech:' .. record.id, 'fleet:delivery:' .. record.id,
    'fleet:callback:' .. record.id, 'fleet:failures:' .. record.id)
end

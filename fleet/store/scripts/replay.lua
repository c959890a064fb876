-- Try a dispatch again, in its old place: a retrying one at once, a dead letter as a new generation.
--
-- ARGV
--   dispatch_id
--   deadline_ms  from now
-- With     _announce, _chain, _requeue
-- Keys     fleet:dispatch:, fleet:journal:, fleet:outcome:, fleet:event:, fleet:payload:, fleet:dead,
--          fleet:callback:, fleet:failures:, fleet:due:, fleet:session:, fleet:sessions, fleet:deadlines, fleet:counts,
--          fleet:chain:, fleet:trail:, fleet:delivery:, fleet:deliveries, fleet:receivers,
--          fleet:retry, agent.<agent>, fleet:bus
-- Returns  the state after the call, 'unknown', 'gone' when the event itself is no longer kept, or
--          'passed' when the chain it is a stage of went on, or ended, without it
-- Invariants
--   Only a retrying or a dead one is tried again. The attempt of a retrying one is the next of its
--   generation. In a new generation the attempt number goes on counting, so a late signal of an old
--   attempt cannot touch the new generation.
--   Who was still to be told of the old end is told of it, under its own name, and of the new one.

-- Make room for the next end's delivery; this one goes on under its generation's name.
local function set_aside(record)
  local key, name = delivery_key(record.id), record.id .. '.' .. record.generation
  local told = read_hash(key)
  if tonumber(told['|open'] or 0) == 0 then return redis.call('DEL', key) end
  redis.call('RENAME', key, delivery_key(name))
  redis.call('HSET', delivery_key(name), '|attempt', record.attempt)
  for field, state in pairs(told) do
    local target = string.match(field, '^([^|]+)|state$')
    if target and state == 'open' then
      local due_ms = redis.call('ZSCORE', line_key(target), record.id .. ' ' .. target)
      leave_line(record.id, target)
      redis.call('ZADD', 'fleet:deliveries', told[target .. '|deadline_ms'], name .. ' ' .. target)
      if due_ms then put_in_line(name, target, due_ms) end
    end
  end
end

local id = ARG.dispatch_id
local record = read_hash(dispatch_key(id))
if not record.id then return 'unknown' end
if record.state == 'retrying' then try_again(record, {'reason', 'tried again by an operator'}) end
if record.state ~= 'dead' then return record.state end
if redis.call('EXISTS', 'fleet:payload:' .. record.event) == 0 then return 'gone' end
if record.chain_id and not rejoin(record) then return 'passed' end

local deadline = string.format('%.0f', NOW + tonumber(ARG.deadline_ms))
for _, key in ipairs({dispatch_key(id), 'fleet:journal:' .. id, 'fleet:callback:' .. id,
  'fleet:failures:' .. id, 'fleet:event:' .. record.event, 'fleet:payload:' .. record.event}) do
  redis.call('PERSIST', key)
end
redis.call('HINCRBY', 'fleet:event:' .. record.event, 'open', 1)
redis.call('HDEL', 'fleet:event:' .. record.event, 'ended_ms', 'end:' .. id)
redis.call('ZREM', 'fleet:dead', id)
redis.call('HDEL', dispatch_key(id), 'ended_ms', 'stage', 'error', 'retryable', 'committed', 'cancel',
  'joined', 'joined_to', 'confirms', 'verification', 'announced_ms')
set_aside(record)
redis.call('HINCRBY', dispatch_key(id), 'generation', 1)
-- Attempts are counted from this base, so that the new generation has all of its own again.
redis.call('HSET', dispatch_key(id), 'losses', 0, 'attempt_base', record.attempt,
  'deadline_ms', deadline, 'queued_ms', NOW)
move(record, 'queued')
redis.call('ZADD', 'fleet:deadlines', deadline, id)
emit('dispatch_queued', plus(who(record), {'reason', 'replayed'}))
if record.session ~= '' then
  local line = session_key(record.session)
  local first = redis.call('ZRANGE', line, 0, 0)[1]
  redis.call('ZADD', line, record.seq, id)
  -- Whoever stood first and did not begin yet steps back behind it.
  local head = first and read_hash(dispatch_key(first)) or {}
  local begun = redis.call('HGET', 'fleet:sessions', line) == first
  if head.state == 'queued' and not begun and redis.call('ZRANGE', line, 0, 0)[1] == id then
    redis.call('ZREM', due_key(head.agent), first)
  end
end
offer(record)
return 'queued'

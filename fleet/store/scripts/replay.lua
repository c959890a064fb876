-- Replay a dead letter as a new generation of the same dispatch, in its old place.
--
-- ARGV
--   dispatch_id
--   deadline_ms  from now
-- With     _announce, _chain
-- Keys     fleet:dispatch:, fleet:journal:, fleet:outcome:, fleet:event:, fleet:payload:, fleet:dead,
--          fleet:callback:, fleet:due:, fleet:session:, fleet:sessions, fleet:deadlines, fleet:counts,
--          fleet:chain:, fleet:trail:, fleet:delivery:, fleet:deliveries, agent.<agent>, fleet:bus
-- Returns  the state after the call, 'unknown', 'gone' when the event itself is no longer kept, or
--          'passed' when the chain it is a stage of went on, or ended, without it
-- Invariants
--   Only a dead one is replayed. The attempt number goes on counting, so a late signal of an old
--   attempt cannot touch the new generation.

local id = ARG.dispatch_id
local record = read_hash(dispatch_key(id))
if not record.id then return 'unknown' end
if record.state ~= 'dead' then return record.state end
if redis.call('EXISTS', 'fleet:payload:' .. record.event) == 0 then return 'gone' end
if record.chain_id and not rejoin(record) then return 'passed' end

local deadline = string.format('%.0f', NOW + tonumber(ARG.deadline_ms))
for _, key in ipairs({dispatch_key(id), 'fleet:journal:' .. id, 'fleet:callback:' .. id,
  'fleet:event:' .. record.event, 'fleet:payload:' .. record.event}) do
  redis.call('PERSIST', key)
end
redis.call('HINCRBY', 'fleet:event:' .. record.event, 'open', 1)
redis.call('HDEL', 'fleet:event:' .. record.event, 'ended_ms', 'end:' .. id)
redis.call('ZREM', 'fleet:dead', id)
redis.call('HDEL', dispatch_key(id), 'ended_ms', 'stage', 'error', 'retryable', 'committed', 'cancel',
  'joined', 'joined_to', 'confirms', 'verification', 'announced_ms')
-- Receivers that did not get this end get the next one.
drop_delivery(id)
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

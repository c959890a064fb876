-- Accept events, each by itself and at once: its payload, one record per dispatch, the doorbells and
-- the bus entries.
--
-- ARGV     for each event: digest, event id, source, session or '', priority, payload (JSON),
--          the route in words, how long to keep the members that are cancelled when one dies (ms),
--          or '' where none is, number of dispatches,
--          then for each of these: id, agent, deadline (ms from now), max_pending
-- Keys     fleet:event:, fleet:payload:, fleet:dispatch:, fleet:due:, fleet:index, fleet:deadlines,
--          fleet:counts, fleet:seq, fleet:session:, fleet:sessions, fleet:bus, agent.<agent>
-- Returns  for each event {'accepted'|'duplicate', id, agent, id, agent, ...} or
--          {'full', agent, pending}
-- Invariants
--   The same digest is accepted once: a second call answers the first one's ids and writes nothing.
--   All or nothing: a full agent refuses the whole event, and no other of the same call.
--   Accepted means due: each record is in its agent's due list before this returns, or in the line of
--   its session.

local HEAD = 9  -- arguments of an event before those of its dispatches

-- The event whose arguments begin at `at` and end at `last`.
local function accept(at, last)
  local digest, event_id, source, session, priority, payload = unpack(ARGV, at, at + 5)
  local route, cancel_keep_ms = unpack(ARGV, at + 6, at + 7)
  local event = 'fleet:event:' .. digest

  local known = redis.call('HGET', event, 'ids')
  if known then
    local answer = {'duplicate'}
    for word in string.gmatch(known, '%S+') do answer[#answer + 1] = word end
    return answer
  end

  for i = at + HEAD, last, 4 do
    local pending = tonumber(redis.call('HGET', 'fleet:counts', ARGV[i + 1] .. '|queued') or 0)
    if pending >= tonumber(ARGV[i + 3]) then return {'full', ARGV[i + 1], pending} end
  end

  local answer, ids = {'accepted'}, {}
  redis.call('SET', 'fleet:payload:' .. digest, payload)
  emit('event_accepted', {'event_id', event_id, 'source', source})
  for i = at + HEAD, last, 4 do
    local id, agent, deadline = ARGV[i], ARGV[i + 1], NOW + tonumber(ARGV[i + 2])
    -- The event was forgotten and comes again; a sweep has not yet been where its record is.
    local left = read_hash(dispatch_key(id))
    if left.id then forget(left) end
    local seq = redis.call('INCR', 'fleet:seq')
    -- Lane first, then age: 2^42 acceptances fit below one step of priority, exact in a double.
    local order = (9 - tonumber(priority)) * 4398046511104 + seq
    local record = {id = id, agent = agent, event_id = event_id, session = session,
      order = string.format('%.0f', order)}
    move(record, 'queued', {'id', id, 'agent', agent, 'event', digest,
      'event_id', event_id, 'source', source, 'session', session, 'priority', priority,
      'order', record.order, 'seq', seq, 'attempt', 0, 'losses', 0, 'generation', 1,
      'accepted_ms', NOW, 'queued_ms', NOW, 'deadline_ms', string.format('%.0f', deadline)})
    redis.call('ZADD', 'fleet:index', seq, id)
    redis.call('ZADD', 'fleet:deadlines', deadline, id)
    emit('dispatch_queued', who(record))
    if session ~= '' then redis.call('ZADD', session_key(session), seq, id) end
    offer(record)
    ids[#ids + 1] = id .. ' ' .. agent
    answer[#answer + 1] = id; answer[#answer + 1] = agent
  end
  redis.call('HSET', event, 'event_id', event_id, 'source', source, 'ids', table.concat(ids, ' '),
    'open', #ids, 'kept', #ids, 'route', route, 'accepted_ms', NOW)
  if cancel_keep_ms ~= '' then redis.call('HSET', event, 'cancel_keep_ms', cancel_keep_ms) end
  return answer
end

local answers, at = {}, 1
while at < #ARGV do
  local last = at + HEAD - 1 + 4 * tonumber(ARGV[at + HEAD - 1])
  answers[#answers + 1] = accept(at, last)
  at = last + 1
end
return answers

-- Accept events, each by itself and at once: its payload, one record per dispatch, the doorbells and
-- the bus entries.
--
-- ARGV     for each event: digest, event id, source, session or '', priority, payload (JSON),
--          the route in words, how long to keep the members that are cancelled when one dies (ms),
--          or '' where none is, number of dispatches,
--          then for each of these: id, agent, deadline (ms from now), max_pending, and what to do
--          when its session is busy: '' | 'reject' | 'interrupt <keep ended, ms>' |
--          'coalesce <quiet window, ms> <longest wait, ms>'
-- With     _busy
-- Keys     fleet:event:, fleet:payload:, fleet:dispatch:, fleet:due:, fleet:index, fleet:deadlines,
--          fleet:counts, fleet:seq, fleet:session:, fleet:sessions, fleet:quiet, fleet:orders:,
--          fleet:ended, fleet:bus, agent.<agent>
-- Returns  for each event {'accepted'|'duplicate', id, agent, id, agent, ...} or
--          {'full', agent, pending} or {'busy', agent}
-- Invariants
--   The same digest is accepted once: a second call answers the first one's ids and writes nothing.
--   All or nothing: a full agent, or a busy session, refuses the whole event, and no other of the same call.
--   Accepted means due: each record is in its agent's due list before this returns, or in the line of
--   its session; or, where events are coalesced, in `fleet:quiet` or part of one that is.

-- Arguments of an event before those of its dispatches, and of each of these.
local HEAD, EACH = 9, 5

-- A new record, waiting nowhere yet.
local function create(record, fields)
  -- The event was forgotten and comes again; a sweep has not yet been where its record is.
  local left = read_hash(dispatch_key(record.id))
  if left.id then forget(left) end
  record.seq = redis.call('INCR', 'fleet:seq')
  -- Lane first, then age: 2^42 acceptances fit below one step of priority, exact in a double.
  record.order = string.format('%.0f', (9 - tonumber(record.priority)) * 4398046511104 + record.seq)
  move(record, 'queued', plus({'id', record.id, 'agent', record.agent, 'event_id', record.event_id,
    'session', record.session, 'priority', record.priority, 'order', record.order,
    'seq', record.seq, 'attempt', 0, 'losses', 0, 'generation', 1,
    'accepted_ms', NOW, 'queued_ms', NOW}, fields))
  redis.call('ZADD', 'fleet:index', record.seq, record.id)
end

-- Where a new record waits. `window_ms` and `most_ms` are nil unless its session's are coalesced.
local function place(record, deadline, bytes, window_ms, most_ms)
  local first = window_ms and joinable(record.session, record.agent, bytes)
  if first then
    redis.call('HSET', dispatch_key(record.id), 'joined_to', first.id,
      'deadline_ms', first.deadline_ms)
    emit('dispatch_queued', plus(who(record), {'reason', 'joins the turn of ' .. first.id}))
    return join(first, record, bytes, window_ms, most_ms)
  end
  redis.call('ZADD', 'fleet:deadlines', deadline, record.id)
  emit('dispatch_queued', who(record))
  if record.session ~= '' then
    redis.call('ZADD', session_key(record.session), record.seq, record.id)
  end
  if window_ms then
    record.quiet_ms = string.format('%.0f', NOW + math.min(window_ms, most_ms))
    redis.call('HSET', dispatch_key(record.id), 'quiet_ms', record.quiet_ms, 'quiet_bytes', bytes)
    redis.call('ZADD', 'fleet:quiet', record.quiet_ms, record.id)
  end
  offer(record)
end

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

  for i = at + HEAD, last, EACH do
    local pending = tonumber(redis.call('HGET', 'fleet:counts', ARGV[i + 1] .. '|queued') or 0)
    if pending >= tonumber(ARGV[i + 3]) then return {'full', ARGV[i + 1], pending} end
    if ARGV[i + 4] == 'reject' and session ~= '' and live_ones(session, ARGV[i + 1])[1] then
      return {'busy', ARGV[i + 1]}
    end
  end

  local answer, ids = {'accepted'}, {}
  redis.call('SET', 'fleet:payload:' .. digest, payload)
  emit('event_accepted', {'event_id', event_id, 'source', source})
  for i = at + HEAD, last, EACH do
    local id, agent, deadline = ARGV[i], ARGV[i + 1], NOW + tonumber(ARGV[i + 2])
    local how = session ~= '' and ARGV[i + 4] or ''
    local busy, first, second = string.match(how, '(%a*) ?(%d*) ?(%d*)')
    if busy == 'interrupt' then interrupt(session, agent, first) end
    local record = {id = id, agent = agent, event_id = event_id, session = session,
      priority = priority}
    create(record, {'event', digest, 'source', source,
      'deadline_ms', string.format('%.0f', deadline)})
    if busy == 'coalesce' then
      place(record, deadline, #payload, tonumber(first), tonumber(second))
    else
      place(record, deadline)
    end
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
  local last = at + HEAD - 1 + EACH * tonumber(ARGV[at + HEAD - 1])
  answers[#answers + 1] = accept(at, last)
  at = last + 1
end
return answers

-- What few events need when they are accepted: a chain, room that is made, a session that must not be
-- busy. Put after `_busy.lua` and `_accept.lua` in the scripts whose legend says `With`.
--
-- Keys     those of `accept.lua`, of which here: fleet:deadlines, fleet:quiet, fleet:chain:, fleet:trail:,
--          fleet:seq

-- Where a new record waits. `window_ms` and `most_ms` are nil unless its session's are coalesced.
local function place(record, deadline, bytes, window_ms, most_ms)
  local first = window_ms and joinable(record.session, record.agent, bytes)
  if first then
    redis.call('HSET', dispatch_key(record.id), 'joined_to', first.id)
    redis.call('ZADD', 'fleet:deadlines', deadline, record.id)
    emit('dispatch_queued', plus(who(record), {'reason', 'joins the turn of ' .. first.id}))
    return join(first, record, bytes, window_ms, most_ms)
  end
  line_up(record, deadline)
  if window_ms then
    record.quiet_ms = string.format('%.0f', NOW + math.min(window_ms, most_ms))
    redis.call('HSET', dispatch_key(record.id), 'quiet_ms', record.quiet_ms, 'quiet_bytes', bytes)
    redis.call('ZADD', 'fleet:quiet', record.quiet_ms, record.id)
  end
  offer(record)
end

-- The chain of an event: its record and its first stage; what that made. It is as old as its event in
-- each stage: its places in line are taken now, one for each member of its largest group.
local function begin_chain(of, plan, text)
  local widest = 1
  for _, rule in ipairs(plan.stages) do widest = math.max(widest, #rule.members) end
  redis.call('DEL', chain_key(plan.id), trail_key(plan.id))
  redis.call('HSET', chain_key(plan.id), 'id', plan.id, 'name', plan.name, 'key', plan.key,
    'event', of.event, 'event_id', of.event_id, 'source', of.source, 'session', of.session,
    'priority', of.priority, 'last_seq', redis.call('INCRBY', 'fleet:seq', widest), 'plan', text,
    'state', 'running', 'revisions', 0, 'passed', 0, 'began_ms', NOW, unpack(origin(of)))
  return begin_stage(read_hash(chain_key(plan.id)), plan, 1, 1)
end

-- A dispatch of its own for one agent, and what that does to its session.
local function send_when_busy(of, dispatch, bytes)
  local busy, first, second = string.match(dispatch.on_busy, '(%a*) ?(%d*) ?(%d*)')
  if busy == 'interrupt' then interrupt(of.session, dispatch.agent, first) end
  local record, deadline = create(of, dispatch.id, dispatch.agent, tonumber(dispatch.deadline_ms),
    dispatch.deliver ~= '' and {'deliver', dispatch.deliver} or {})
  if busy == 'coalesce' then
    place(record, deadline, bytes, tonumber(first), tonumber(second))
  else
    place(record, deadline)
  end
end

more.begin_chain, more.send_when_busy = begin_chain, send_when_busy
more.dispensable, more.drop, more.live_ones = dispensable, drop, live_ones

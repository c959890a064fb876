-- How an event is accepted. Put after `_lib.lua`, `_busy.lua`, `_caps.lua` and `_chain.lua` in the
-- scripts whose legend says `With`. The arguments are read from ARGV; see `accept.lua`.
--
-- Keys     those of `accept.lua`, of which here: fleet:event:, fleet:payload:, fleet:seq,
--          fleet:counts, fleet:deadlines, fleet:quiet

-- Arguments of an event before those of its dispatches, and of each of these.
local HEAD, EACH = 15, 7

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
    'state', 'running', 'revisions', 0, 'passed', 0, 'began_ms', NOW, unpack(sender(of)))
  return begin_stage(read_hash(chain_key(plan.id)), plan, 1, 1)
end

-- What the sender is told; `ids` are words: id, agent, id, agent, ...
local function answer(verdict, chain, ids)
  local told = {verdict, chain}
  for word in string.gmatch(ids, '%S+') do told[#told + 1] = word end
  return told
end

-- A dispatch of its own for one agent, and what that does to its session.
local function send(of, id, agent, within_ms, how, deliver, bytes)
  local busy, first, second = string.match(of.session ~= '' and how or '', '(%a*) ?(%d*) ?(%d*)')
  if busy == 'interrupt' then interrupt(of.session, agent, first) end
  local record, deadline = create(of, id, agent, within_ms, deliver ~= '' and {'deliver', deliver} or {})
  if busy == 'coalesce' then
    place(record, deadline, bytes, tonumber(first), tonumber(second))
  else
    place(record, deadline)
  end
end

local function record_of(digest)
  return unpack(redis.call('HMGET', 'fleet:event:' .. digest, 'ids', 'chain', 'content'))
end

-- The answer for an event that is known already, or nil. A record without `content` is of a version
-- before senders, which kept everybody's events under `old`.
local function known_as(digest, old, content)
  local ids, chain, kept = record_of(digest)
  if ids and kept and kept ~= '' and kept ~= content then return {'conflict'} end
  if ids then return answer('duplicate', chain or '', ids) end
  if old == '' then return nil end
  ids, chain, kept = record_of(old)
  return ids and not kept and answer('old', chain or '', ids) or nil
end

-- The event whose arguments begin at `at` and end at `last`.
local function accept(at, last)
  local digest, event_id, source, sent_by, content, old = unpack(ARGV, at, at + 5)
  local session, priority, payload, route, cancel_keep_ms, text = unpack(ARGV, at + 6, at + 11)
  local event = 'fleet:event:' .. digest

  local known = known_as(digest, old, content)
  if known then return known end

  local no = refusal(source, ARGV[at + 12], ARGV[at + 13])
  if no then return no end
  local full = {}
  for i = at + HEAD, last, EACH do
    local pending = tonumber(redis.call('HGET', 'fleet:counts', ARGV[i + 1] .. '|queued') or 0)
    if pending >= tonumber(ARGV[i + 3]) then
      local victim = ARGV[i + 4] ~= '' and dispensable(ARGV[i + 1], priority)
      if not victim then return {'full', ARGV[i + 1], pending} end
      full[#full + 1] = {victim, ARGV[i + 4]}
    end
    if ARGV[i + 5] == 'reject' and session ~= '' and live_ones(session, ARGV[i + 1])[1] then
      return {'busy', ARGV[i + 1]}
    end
  end

  for _, one in ipairs(full) do drop(one[1], one[2]) end
  redis.call('SET', 'fleet:payload:' .. digest, payload)
  local of = {event = digest, event_id = event_id, source = source, session = session,
    priority = priority, sent_by = sent_by ~= '' and sent_by or nil}
  emit('event_accepted', plus({'event_id', event_id, 'source', source}, sender(of)))
  local made, name = {}, ''
  if text ~= '' then
    local plan = cjson.decode(text)
    made, name = begin_chain(of, plan, text), plan.name
  else
    for i = at + HEAD, last, EACH do
      send(of, ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 5], ARGV[i + 6], #payload)
      made[#made + 1] = ARGV[i] .. ' ' .. ARGV[i + 1]
    end
  end
  local ids = table.concat(made, ' ')
  redis.call('HSET', event, 'event_id', event_id, 'source', source, 'ids', ids, 'chain', name,
    'open', #made, 'kept', #made, 'route', route, 'accepted_ms', NOW, 'content', content,
    unpack(sender(of)))
  if cancel_keep_ms ~= '' then redis.call('HSET', event, 'cancel_keep_ms', cancel_keep_ms) end
  return answer('accepted', name, ids)
end

-- Where the arguments of the event end that begin at `at`.
local function last_of(at) return at + HEAD - 1 + EACH * tonumber(ARGV[at + HEAD - 1]) end

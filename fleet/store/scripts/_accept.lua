-- How an event is accepted. Put after `_lib.lua`, `_caps.lua` and `_chain.lua` in the scripts whose
-- legend says `With`.
--
-- EventArgs
--   digest             of the event's key
--   event_id
--   source
--   sent_by            the sender, or ''
--   content            digest of the content, or ''
--   old_digest         the digest that a version before senders gave the event, or ''
--   session            or ''
--   priority
--   payload            JSON
--   route              the route in words
--   cancel_keep_ms     time for which members are kept that are cancelled when one dies, or ''
--   plan               the plan of a chain (JSON), or ''
--   store_memory       share of the store's memory above which none is accepted
--   max_waiting        most dispatches that may wait in the fleet
--   sender_per_minute  most events a minute of one sender, or ''
--   resent_from        the dispatch whose event is sent again as this one, or ''
--   dispatches...      DispatchArgs; with a plan they are of its first stage, and only checked for room
-- DispatchArgs
--   id
--   agent
--   deadline_ms   from now
--   max_pending   most dispatches of the agent that may wait
--   drop_keep_ms  time for which the dispatch is kept that is dropped for this one, or '' to refuse this one
--   on_busy       when the session is busy: '' | 'reject' | 'interrupt <keep ended, ms>' |
--                 'coalesce <quiet window, ms> <longest wait, ms>'
--   deliver       the receivers of the outcome, as `_announce.lua` has them, or ''
-- Keys     those of `accept.lua`, of which here: fleet:event:, fleet:payload:, fleet:seq,
--          fleet:counts, fleet:deadlines, fleet:quiet, fleet:event_ids

-- What few events need: functions of `_accept_more.lua`, in the scripts whose legend names it.
local more = {}

-- The answer to the sender; `ids` are words: id, agent, id, agent, ...
local function answer(verdict, chain, ids)
  local words = {verdict, chain}
  for word in string.gmatch(ids, '%S+') do words[#words + 1] = word end
  return words
end

-- A dispatch of its own for one agent.
local function send(of, dispatch, bytes)
  if of.session ~= '' and dispatch.on_busy ~= '' then return more.send_when_busy(of, dispatch, bytes) end
  local record, deadline = create(of, dispatch.id, dispatch.agent, tonumber(dispatch.deadline_ms),
    dispatch.deliver ~= '' and {'deliver', dispatch.deliver} or {})
  line_up(record, deadline)
  offer(record)
end

-- Name the newest dispatches in which an event runs again with the dispatch that it was sent again from.
local RESENT_MAX = 20
local function record_resent(from, made)
  if redis.call('EXISTS', dispatch_key(from)) == 0 then return end
  local ids = {}
  for i = #made, 1, -1 do ids[#ids + 1] = string.match(made[i], '%S+') end
  for id in string.gmatch(redis.call('HGET', dispatch_key(from), 'resent_as') or '', '%S+') do
    ids[#ids + 1] = id
  end
  redis.call('HSET', dispatch_key(from), 'resent_as',
    table.concat(ids, ' ', 1, math.min(#ids, RESENT_MAX)))
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

-- The event whose arguments begin at `at`, its dispatches, and where the next event begins.
local function read_event(at)
  local event, dispatches = EventArgs(at), {}
  at = event.dispatches + 1
  for i = 1, tonumber(ARGV[event.dispatches]) do dispatches[i], at = DispatchArgs(at) end
  return event, dispatches, at
end

-- The answer for an event, an `EventArgs`.
local function accept(event, dispatches)
  local known = known_as(event.digest, event.old_digest, event.content)
  if known then return known end

  -- A sender chooses its source; only the fleet's own says who sent it, an agent or a chain.
  local counted = event.sent_by == 'fleet' and event.source or event.sent_by
  local no = refusal(counted, event.store_memory, event.max_waiting, event.sender_per_minute)
  if no then return no end
  local full = {}
  for _, one in ipairs(dispatches) do
    local pending = count_of(one.agent, 'queued')
    if pending >= tonumber(one.max_pending) then
      local victim = one.drop_keep_ms ~= '' and more.dispensable(one.agent, event.priority)
      if not victim then return {'full', one.agent, pending} end
      full[#full + 1] = {victim, one.drop_keep_ms}
    end
    if one.on_busy == 'reject' and event.session ~= '' and more.live_ones(event.session, one.agent)[1] then
      return {'busy', one.agent}
    end
  end

  for _, one in ipairs(full) do more.drop(one[1], one[2]) end
  redis.call('SET', 'fleet:payload:' .. event.digest, event.payload)
  local of = {event = event.digest, event_id = event.event_id, source = event.source,
    session = event.session, priority = event.priority,
    sent_by = event.sent_by ~= '' and event.sent_by or nil,
    resent_from = event.resent_from ~= '' and event.resent_from or nil}
  emit('event_accepted', plus({'event_id', of.event_id, 'source', of.source}, origin(of)))
  local made, name = {}, ''
  if event.plan ~= '' then
    local plan = cjson.decode(event.plan)
    made, name = more.begin_chain(of, plan, event.plan), plan.name
  else
    for i, one in ipairs(dispatches) do
      send(of, one, #event.payload)
      made[i] = one.id .. ' ' .. one.agent
    end
  end
  local ids, key = table.concat(made, ' '), 'fleet:event:' .. event.digest
  redis.call('HSET', key, 'event_id', of.event_id, 'source', of.source, 'ids', ids, 'chain', name,
    'open', #made, 'kept', #made, 'route', event.route, 'accepted_ms', NOW,
    'content', event.content, unpack(origin(of)))
  put('ZADD', 'fleet:event_ids', 0, of.event_id .. '\n' .. event.digest)
  if of.resent_from then record_resent(of.resent_from, made) end
  if event.cancel_keep_ms ~= '' then
    redis.call('HSET', key, 'cancel_keep_ms', event.cancel_keep_ms)
  end
  return answer('accepted', name, ids)
end

-- Compare the conditions that hold with those that were reported, and report each difference once.
--
-- ARGV
--   conditions  the conditions that hold (JSON list of objects: key, name, agent, reason, for_ms, count,
--               quiet: [states that others put on the bus])
--   news        single events to report (JSON list of objects: name, agent, reason, dispatch_id, entry, at_ms)
--   cursor      the place on the bus up to which news were read
--   again_ms    least time before a growing condition is reported again
--   per_minute  most messages a minute
--   outbox_max  most messages that wait
--   sends       '1' when messages are sent anywhere
--   silence_ms  silence of all callers after which earlier conditions count as new
--   past_max    most alerts that are kept after they are over
-- Keys     fleet:alerts, fleet:alerts:cursor, fleet:alerts:looked, fleet:alerts:outbox, fleet:alerts:rate,
--          fleet:alerts:suppressed, fleet:alerts:silences, fleet:alerts:past, fleet:alerted:, fleet:bus
-- Returns  how many messages were put into the outbox
-- Invariants
--   A condition is reported when it has lasted as long as it must, reported again only when its count
--   has grown, and its end is reported once. A condition that was never reported ends unreported.
--   What is silenced is reported on the bus and sent to nobody; its end is sent only where its opening was.
--   A growing condition that somebody acknowledged is not sent again.
--   The outbox is bounded, in length and in growth; what does not fit is counted in the next message.
--   Any number may call this: all see the same memory.

local conditions, news = cjson.decode(ARG.conditions), cjson.decode(ARG.news)
local again_ms, per_minute, most = tonumber(ARG.again_ms), tonumber(ARG.per_minute), tonumber(ARG.outbox_max)
local queued = 0

local function digest(text) return string.sub(redis.sha1hex(text), 1, 12) end

local silenced = {}
for target, text in pairs(read_hash('fleet:alerts:silences')) do
  if cjson.decode(text).until_ms > NOW then
    silenced[target] = true
  else
    redis.call('HDEL', 'fleet:alerts:silences', target)
  end
end

-- True when the message was put into the outbox, or counted as one too many.
local function send(what, state)
  if ARG.sends ~= '1' or silenced[what.name] or what.key and silenced[what.key] then return false end
  if count_in_minute('fleet:alerts:rate') > per_minute
      or redis.call('LLEN', 'fleet:alerts:outbox') >= most then
    redis.call('INCR', 'fleet:alerts:suppressed')
    return true
  end
  queued = queued + 1
  local id = string.format('%.0f', NOW) .. '-' .. queued
  local suppressed = tonumber(redis.call('GET', 'fleet:alerts:suppressed') or 0)
  redis.call('DEL', 'fleet:alerts:suppressed')
  redis.call('RPUSH', 'fleet:alerts:outbox', cjson.encode({id = id, alert_id = what.id, name = what.name,
    agent = what.agent, reason = what.reason, state = state, at_ms = NOW, since_ms = what.opened,
    suppressed = suppressed}))
  return true
end

local function announce(what, state)
  for _, quiet in ipairs(what.quiet) do if quiet == state then return end end
  local fields = {'name', what.name, 'reason', what.reason, 'state', state}
  if what.agent ~= '' then plus(fields, {'agent', what.agent}) end
  emit('alert', fields)
end

-- Keep what is over, for those who look later.
local function keep(what, state)
  redis.call('LPUSH', 'fleet:alerts:past', cjson.encode({id = what.id, key = what.key,
    name = what.name, agent = what.agent, reason = what.reason, state = state, opened = what.opened, ended = NOW,
    ack = what.ack, dispatch_id = what.dispatch_id}))
end

-- A fleet that was stopped had its agents offline all the time, and that is no news.
local looked = tonumber(redis.call('GET', 'fleet:alerts:looked') or NOW)
local resumed = NOW - looked > tonumber(ARG.silence_ms)
redis.call('SET', 'fleet:alerts:looked', NOW)
local holding = {}
for _, now in ipairs(conditions) do
  holding[now.key] = true
  local known = redis.call('HGET', 'fleet:alerts', now.key)
  known = known and cjson.decode(known) or {since = NOW, told = 0, sent = 0, count = 0}
  if resumed and known.told == 0 then known.since = NOW end
  known.key, known.name, known.agent, known.reason = now.key, now.name, now.agent, now.reason
  known.quiet = now.quiet
  local due = known.told == 0 and NOW - known.since >= now.for_ms
  local grown = known.told > 0 and now.count > known.count and NOW - known.told >= again_ms
  -- One of an earlier version has no id, and was sent when it was told.
  if due or not known.id then
    known.opened = due and NOW or known.since
    known.id = digest(now.key .. ':' .. string.format('%.0f', known.opened))
    known.sent = known.sent or known.told
  end
  if due or grown then
    announce(known, 'open')
    known.told, known.count = NOW, now.count
  end
  local wanted = known.told > 0 and known.sent == 0 or grown and not known.ack
  if wanted and send(known, 'open') then known.sent = NOW end
  redis.call('HSET', 'fleet:alerts', now.key, cjson.encode(known))
end

for key, text in pairs(read_hash('fleet:alerts')) do
  if not holding[key] then
    local known = cjson.decode(text)
    -- An earlier version had a flag here.
    if type(known.quiet) ~= 'table' then known.quiet = {} end
    if known.told > 0 then
      announce(known, 'closed')
      if (known.sent or known.told) > 0 then send(known, 'closed') end
      keep(known, 'resolved')
    end
    redis.call('HDEL', 'fleet:alerts', key)
  end
end

for _, item in ipairs(news) do
  local key = 'fleet:alerted:' .. item.name .. ':news:' .. item.agent .. item.dispatch_id
  if once(key, 60000) then
    item.id, item.opened = digest(item.name .. ':' .. item.entry), item.at_ms
    send(item, '')
    keep(item, 'notice')
  end
end
redis.call('LTRIM', 'fleet:alerts:past', 0, ARG.past_max - 1)
redis.call('SET', 'fleet:alerts:cursor', ARG.cursor)
-- The memory of a fleet that was taken down is not kept for ever.
for _, key in ipairs({'fleet:alerts', 'fleet:alerts:cursor', 'fleet:alerts:outbox',
  'fleet:alerts:suppressed', 'fleet:alerts:looked'}) do
  redis.call('PEXPIRE', key, 86400000)
end
redis.call('PEXPIRE', 'fleet:alerts:past', 7 * 86400000)
return queued

-- Silence an alert or a kind of alert, end a silence, or acknowledge an alert.
--
-- ARGV
--   verb          'silence' | 'unsilence' | 'ack'
--   target        the key of an alert, or with silence and unsilence its name: all of that kind
--   alert_id      the id of the opening that is meant, or '' for a kind
--   name          silence: the alert's name
--   agent         silence: the alert's agent, or ''
--   by            who says so
--   comment
--   for_ms        silence: for how long
--   silences_max  silence: most silences at a time
-- Keys     fleet:alerts, fleet:alerts:silences
-- Returns  'done' | 'gone', when there is no such alert or silence | 'full'
-- Invariants
--   A silenced alert is listed and on the bus, and is sent to nobody. What is still open when its silence
--   ends is sent then. A second silence of the same target takes the place of the first.
--   An acknowledgement holds for one opening: the same condition opens unacknowledged again.

local silences = 'fleet:alerts:silences'

if ARG.verb == 'ack' then
  local text = redis.call('HGET', 'fleet:alerts', ARG.target)
  local known = text and cjson.decode(text)
  if not known or known.told == 0 or known.id ~= ARG.alert_id then return 'gone' end
  known.ack = {by = ARG.by, comment = ARG.comment, at_ms = NOW}
  redis.call('HSET', 'fleet:alerts', ARG.target, cjson.encode(known))
  return 'done'
end

if ARG.verb == 'unsilence' then
  return redis.call('HDEL', silences, ARG.target) == 1 and 'done' or 'gone'
end

local replaces = redis.call('HEXISTS', silences, ARG.target) == 1
if not replaces and redis.call('HLEN', silences) >= tonumber(ARG.silences_max) then return 'full' end
redis.call('HSET', silences, ARG.target, cjson.encode({id = ARG.alert_id, name = ARG.name,
  agent = ARG.agent, by = ARG.by, comment = ARG.comment, since_ms = NOW, until_ms = NOW + ARG.for_ms}))
-- Until the last of them ends.
if redis.call('PTTL', silences) < tonumber(ARG.for_ms) then
  redis.call('PEXPIRE', silences, ARG.for_ms)
end
return 'done'

-- Find the outcomes that are due now; give up those whose deadline passed.
--
-- ARGV
--   limit          most deliveries to look at in this call
--   again_ms       time before another wake-up for a delivery that nobody claimed;
--                  '' to give up only
--   queue_max      most messages that may wait in the queue
--   keep_ended_ms
--   target         'upstream' for the deliveries there, else ''
-- With     _announce, _chain, _delivery
-- Keys     fleet:deliveries, fleet:delivery:, fleet:dispatch:, fleet:outcome:, fleet:counts,
--          fleet:totals, fleet:ended, fleet:event:, fleet:bus, delivery
-- Returns  {given up, dispatch id to publish for, ...}
-- Invariants
--   Bounded per call. What a sender has now is not touched until its time is over.
--   A queue that nobody serves does not grow for ever, and deadlines hold without it.

local again_ms, keep_ms = tonumber(ARG.again_ms), ARG.keep_ended_ms
local given_up, found_due, seen = 0, {}, {}
local room = ARG.target == 'upstream' or redis.call('LLEN', 'delivery') < tonumber(ARG.queue_max)
local list = deliveries_key(ARG.target)

for _, place in ipairs(redis.call('ZRANGEBYSCORE', list, '-inf', NOW, 'LIMIT', 0, ARG.limit)) do
  local id, target = string.match(place, '(%S+) (%S+)')
  local found = redis.call('HMGET', delivery_key(id), target .. '|state', target .. '|deadline_ms',
    target .. '|until_ms', target .. '|reason', target .. '|placed')
  local record = read_hash(dispatch_key(id))
  if found[1] ~= 'open' or not record.id then
    redis.call('ZREM', list, place)
  elseif tonumber(found[3] or 0) > NOW then
    redis.call('ZADD', list, found[3], place)
  elseif NOW >= tonumber(found[2]) then
    give_up(record, target, found[4], keep_ms)
    given_up = given_up + 1
  elseif found[5] then
    redis.call('ZADD', list, found[2], place)
  elseif again_ms then
    redis.call('ZADD', list, math.min(NOW + again_ms, tonumber(found[2])), place)
    if room and not seen[id] then
      seen[id] = true
      found_due[#found_due + 1] = id
    end
  end
end
table.insert(found_due, 1, given_up)
return found_due

-- Which announced outcomes to ring for now; those whose deadline passed are given up.
--
-- ARGV     1 most to look at in this call, 2 when to ring again for what nobody took (ms),
--          3 most messages that may hang in the queue, 4 keep ended (ms)
-- With     _chain, _delivery
-- Keys     fleet:deliveries, fleet:delivery:, fleet:dispatch:, fleet:outcome:, fleet:counts,
--          fleet:totals, fleet:ended, fleet:event:, fleet:bus, delivery
-- Returns  {given up, dispatch id to ring for, ...}
-- Invariants
--   Bounded per call. What a sender has now is not touched until its time is over.
--   A queue that nobody serves does not grow for ever, and deadlines hold without it.

local limit, again_ms, most, keep_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local given_up, ring, seen = 0, {}, {}
local room = redis.call('LLEN', 'delivery') < most

for _, place in ipairs(redis.call('ZRANGEBYSCORE', 'fleet:deliveries', '-inf', NOW,
  'LIMIT', 0, limit)) do
  local id, target = string.match(place, '(%S+) (%S+)')
  local found = redis.call('HMGET', delivery_key(id), target .. '|state', target .. '|deadline_ms',
    target .. '|until_ms', target .. '|reason')
  local record = read_hash(dispatch_key(id))
  if found[1] ~= 'open' or record.state ~= 'announcing' then
    redis.call('ZREM', 'fleet:deliveries', place)
  elseif tonumber(found[3] or 0) > NOW then
    redis.call('ZADD', 'fleet:deliveries', found[3], place)
  elseif NOW >= tonumber(found[2]) then
    give_up(record, target, found[4], keep_ms)
    given_up = given_up + 1
  else
    redis.call('ZADD', 'fleet:deliveries', math.min(NOW + again_ms, tonumber(found[2])), place)
    if room and not seen[id] then
      seen[id] = true
      ring[#ring + 1] = id
    end
  end
end
table.insert(ring, 1, given_up)
return ring

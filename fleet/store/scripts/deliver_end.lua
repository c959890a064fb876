-- Report how a try to deliver an outcome ended.
--
-- ARGV     1 dispatch id, 2 target, 3 the name under which it was claimed,
--          4 'ack' | 'unverified' (sent, but not confirmed in time) | 'failed', 5 reason,
--          6 keep ended (ms)
-- With     _chain, _delivery
-- Keys     fleet:deliveries, fleet:delivery:, fleet:target:, fleet:dispatch:, fleet:outcome:,
--          fleet:counts, fleet:totals, fleet:ended, fleet:event:, fleet:bus
-- Returns  {'again', ms} | {'ended', state of the dispatch} | {'fenced'}
-- Invariants
--   Only the sender that has the target reports; another's word changes nothing.
--   What was sent and not confirmed is not sent again. What failed is, until its deadline,
--   later each time, also where the receiver takes others meanwhile.
--   A repeated call (its reply was lost) answers the same and writes nothing.

local id, target, call, sample, reason, keep_ms = unpack(ARGV)
local found = read_hash(delivery_key(id))
local function of(name) return found[target .. '|' .. name] end
local record = read_hash(dispatch_key(id))

if of('last') == call then
  if of('state') == 'open' then return {'again', tonumber(of('rest_ms'))} end
  return {'ended', record.state}
end
if of('state') ~= 'open' or of('token') ~= call then return {'fenced'} end

local rest = throttle(target, sample)
-- A receiver that takes every other outcome is well, and still not to be pressed with this one.
if sample == 'failed' then
  rest = math.max(rest, DELAYS_MS[tonumber(of('tries'))] or DELAY_MOST_MS)
end
redis.call('HSET', delivery_key(id), target .. '|last', call, target .. '|rest_ms', rest,
  target .. '|reason', reason)
if sample == 'ack' then
  settle(record, target, 'ack', reason, keep_ms)
elseif sample == 'unverified' then
  settle(record, target, 'timeout_fallback', reason, keep_ms)
elseif NOW + rest >= tonumber(of('deadline_ms')) then
  give_up(record, target, reason, keep_ms)
else
  redis.call('HDEL', delivery_key(id), target .. '|token', target .. '|until_ms')
  redis.call('ZADD', 'fleet:deliveries', NOW + rest, id .. ' ' .. target)
  return {'again', rest}
end
return {'ended', record.state}

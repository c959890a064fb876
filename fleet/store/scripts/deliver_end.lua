-- Report the end of an attempt to deliver an outcome.
--
-- ARGV
--   dispatch_id     the delivery's name; see `_announce.lua`
--   target
--   call            the name under which the target was claimed
--   result          'ack' | 'unverified' (sent, and not confirmed in time or never to be accepted) | 'failed' |
--                   'placed' (an agent has the outcome as a dispatch)
--   reason
--   keep_ended_ms
--   retry_after_ms  least time before the next attempt
--   placed          of 'placed' the id of that dispatch, else ''
-- With     _announce, _chain, _delivery
-- Keys     fleet:deliveries, fleet:receivers, fleet:delivery:, fleet:target:, fleet:beat, fleet:back,
--          fleet:dispatch:, fleet:outcome:, fleet:counts, fleet:totals, fleet:ended, fleet:event:, fleet:bus
-- Returns  {'again', ms} | {'placed'} | {'ended', state of the dispatch} | {'fenced'}
-- Invariants
--   Only the sender that has the target reports; another's word changes nothing.
--   What was sent and not confirmed is not sent again. What failed is, until its deadline,
--   later each time, also where the receiver accepts other outcomes in between.
--   What an agent was given is confirmed by that dispatch, in the step that ends its turn.
--   A repeated call (its reply was lost) answers the same and writes nothing.

local record = record_of(ARG.dispatch_id)
local name, target, call, keep_ms = record.told, ARG.target, ARG.call, ARG.keep_ended_ms
local result, reason, placed = ARG.result, ARG.reason, ARG.placed
local found = read_hash(delivery_key(name))
local function of(field) return found[target .. '|' .. field] end

if of('last') == call then
  if of('state') ~= 'open' then return {'ended', record.state} end
  return of('placed') and {'placed'} or {'again', tonumber(of('rest_ms'))}
end
if of('state') ~= 'open' or of('token') ~= call then return {'fenced'} end
redis.call('HDEL', target_key(target), 'sending ' .. call)

-- It may wish for more time than there is; then it is tried once more at the end of it.
local deadline = last_moment(found, target)
local wished = math.max(0, math.min(tonumber(ARG.retry_after_ms), deadline - NOW - DELAY_MOST_MS))
local rest = throttle(target, result == 'placed' and 'ack' or result, wished)
-- A receiver that takes every other outcome is well, and still not to be pressed with this one.
if result == 'failed' then
  rest = math.max(rest, DELAYS_MS[tonumber(of('tries'))] or DELAY_MOST_MS)
end
redis.call('HSET', delivery_key(name), target .. '|last', call, target .. '|rest_ms', rest,
  target .. '|reason', reason)
redis.call('HDEL', delivery_key(name), target .. '|token', target .. '|until_ms')
look_at(target, NOW)
if result == 'ack' then
  end_target(record, target, 'ack', reason, keep_ms)
elseif result == 'unverified' then
  end_target(record, target, 'timeout_fallback', reason, keep_ms)
elseif result == 'placed' then
  redis.call('HSET', delivery_key(name), target .. '|placed', placed)
  redis.call('ZREM', line_key(target), name .. ' ' .. target)
  local there = read_hash(dispatch_key(placed))
  if not there.id then
    end_target(record, target, 'timeout_fallback', reason .. ', which is no longer known', keep_ms)
    return {'ended', record.state}
  end
  there.confirms = record.id .. '.' .. (string.match(name, '%.(%d+)$') or record.generation) .. ' ' .. target
  redis.call('HSET', dispatch_key(placed), 'confirms', there.confirms)
  local over = there.state == 'announcing' and 'completed' or there.state
  if not there.ended_ms and over ~= 'completed' then return {'placed'} end
  confirm(there, over, there.error, keep_ms)
  record.state = redis.call('HGET', dispatch_key(record.id), 'state')
elseif NOW + rest >= deadline then
  give_up(record, target, reason, keep_ms)
else
  redis.call('ZADD', 'fleet:deliveries', deadline, name .. ' ' .. target)
  put_in_line(name, target, NOW + rest)
  return {'again', rest}
end
return {'ended', record.state}

-- Claim one target of an announced outcome, to send it there now.
--
-- ARGV
--   dispatch_id
--   target
--   call           a name of this call
--   lease_ms       time for which the sender has the target
--   keep_ended_ms
-- With     _announce, _chain, _delivery
-- Keys     fleet:deliveries, fleet:delivery:, fleet:target:, fleet:dispatch:, fleet:outcome:,
--          fleet:trail:
-- Returns  {'claimed', the record (flat), answer, the delivery (flat), of a chain's end what each of
--          its stages ended with (JSON), ...} | {'wait'} | {'ended'}
-- Invariants
--   One sender has a target of a dispatch at a time, until it reports or its time is over; what an
--   agent was given, nobody has.
--   What ended is never sent again. After its deadline nothing is sent.
--   A receiver that fails is tried by one sender at a time, when its delay is over, whatever waits.
--   A repeated call of the same name (its reply was lost) answers the same.

local id, target, call, keep_ms = ARG.dispatch_id, ARG.target, ARG.call, ARG.keep_ended_ms
local found = read_hash(delivery_key(id))
local function of(name) return found[target .. '|' .. name] end

if of('state') ~= 'open' then return {'ended'} end
if of('placed') then return {'wait'} end
local record = read_hash(dispatch_key(id))
local function claimed()
  local ended_well = found['|outcome'] == 'completed' and not found['|chain']
  return plus({'claimed', redis.call('HGETALL', dispatch_key(id)),
    ended_well and redis.call('GET', 'fleet:outcome:' .. id) or '',
    redis.call('HGETALL', delivery_key(id))},
    found['|chain'] and redis.call('HVALS', 'fleet:trail:' .. record.chain_id) or {})
end
if of('token') == call then return claimed() end

local place = id .. ' ' .. target
local function wait(until_ms)
  redis.call('ZADD', deliveries_key(target), until_ms, place)
  return {'wait'}
end
if tonumber(of('until_ms') or 0) > NOW then return wait(tonumber(of('until_ms'))) end
if NOW >= tonumber(of('deadline_ms')) then
  give_up(record, target, of('reason'), keep_ms)
  return {'ended'}
end
local known = read_hash(target_key(target))
if tonumber(known.next_ms or 0) > NOW then
  return wait(math.min(tonumber(known.next_ms), tonumber(of('deadline_ms'))))
end
if tonumber(known.failures or 0) > 0 then
  redis.call('HSET', target_key(target), 'next_ms',
    string.format('%.0f', NOW + tonumber(known.delay_ms)))
end
local until_ms = NOW + tonumber(ARG.lease_ms)
redis.call('HSET', delivery_key(id), target .. '|token', call, target .. '|until_ms',
  string.format('%.0f', until_ms))
redis.call('HINCRBY', delivery_key(id), target .. '|tries', 1)
redis.call('ZADD', deliveries_key(target), until_ms, place)
return claimed()

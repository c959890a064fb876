-- Claim one target of an announced outcome, to send it there now.
--
-- ARGV
--   dispatch_id    the delivery's name; see `_announce.lua`
--   target
--   call           a name of this call
--   lease_ms       time for which the sender has the target
--   keep_ended_ms
-- With     _announce, _chain, _delivery
-- Keys     fleet:lost, fleet:deliveries, fleet:receivers, fleet:delivery:, fleet:target:, fleet:beat, fleet:back,
--          fleet:dispatch:, fleet:outcome:, fleet:trail:
-- Returns  {'claimed', the record (flat), answer, the delivery (flat), of a chain's end what each of
--          its stages ended with (JSON), ...} | {'wait'} | {'ended'}
-- Invariants
--   One sender has a target of a dispatch at a time, until it reports or its time is over; what an
--   agent was given, nobody has.
--   What ended is never sent again. After its deadline nothing is sent.
--   A receiver has a bounded number of senders, over all processes. One that fails or hangs has one
--   at a time, when its delay is over, whatever waits.
--   A repeated call of the same name (its reply was lost) answers the same.

local record = record_of(ARG.dispatch_id)
local name, target, call, keep_ms = record.told, ARG.target, ARG.call, ARG.keep_ended_ms
local found = read_hash(delivery_key(name))
local function of(field) return found[target .. '|' .. field] end

if of('state') ~= 'open' or not record.id then return {'ended'} end
-- A store that went back does not know what was sent since.
if of('placed') or redis.call('EXISTS', 'fleet:lost') == 1 then return {'wait'} end
local function claimed()
  local ended_well = found['|outcome'] == 'completed' and not found['|chain']
  local flat = redis.call('HGETALL', dispatch_key(record.id))
  if record.earlier then
    plus(flat, {'generation', string.match(name, '%d+$'), 'attempt', found['|attempt']})
  end
  return plus({'claimed', flat,
    ended_well and redis.call('GET', 'fleet:outcome:' .. record.id) or '',
    redis.call('HGETALL', delivery_key(name))},
    found['|chain'] and redis.call('HVALS', 'fleet:trail:' .. record.chain_id) or {})
end
if of('token') == call then return claimed() end

if tonumber(of('until_ms') or 0) > NOW then
  put_in_line(name, target, tonumber(of('until_ms')))
  return {'wait'}
end
if NOW >= last_moment(found, target) then
  give_up(record, target, of('reason'), keep_ms)
  return {'ended'}
end
local free, soonest = free_slots(target, read_hash(target_key(target)))
if free == 0 then
  -- Due when the receiver is, the oldest first.
  redis.call('ZADD', line_key(target), found['|opened_ms'], name .. ' ' .. target)
  look_at(target, soonest)
  return {'wait'}
end
local until_ms = string.format('%.0f', NOW + tonumber(ARG.lease_ms))
redis.call('HSET', delivery_key(name), target .. '|token', call, target .. '|until_ms', until_ms,
  target .. '|tried_ms', NOW)
redis.call('HINCRBY', delivery_key(name), target .. '|tries', 1)
redis.call('HSET', target_key(target), 'sending ' .. call, until_ms)
redis.call('PEXPIRE', target_key(target), TARGET_MS)
put_in_line(name, target, until_ms)
return claimed()

-- Find the deliveries that are due now; give up those whose deadline passed.
--
-- ARGV
--   limit          most deliveries to look at in this call
--   again_ms       time before another wake-up for a delivery that nobody claimed
--   queue_max      most messages that may wait in the queue
--   keep_ended_ms
--   target         one receiver, or '' for the deadlines and for every receiver that is due
-- With     _announce, _chain, _delivery
-- Keys     fleet:lost, fleet:deliveries, fleet:receivers, fleet:delivery:, fleet:target:, fleet:beat, fleet:back,
--          fleet:dispatch:, fleet:outcome:, fleet:counts, fleet:totals, fleet:ended, fleet:event:,
--          fleet:bus, delivery
-- Returns  {given up, `name target` of a delivery to publish for, ...}
-- Invariants
--   Bounded per call, and what is not due is not read, nor the line of a receiver that rests.
--   No receiver gets more wake-ups than it may have attempts, so none is in the way of another.
--   What a sender has now is not touched until its time is over.
--   A queue that nobody serves does not grow for ever, and deadlines hold without it.

local limit, again_ms, keep_ms = tonumber(ARG.limit), tonumber(ARG.again_ms), ARG.keep_ended_ms
local given_up, found_due = 0, {}

-- A store that went back does not know what was sent since.
if redis.call('EXISTS', 'fleet:lost') == 1 then return {0} end

local function check_deadline(place)
  local name, target = string.match(place, '(%S+) (%S+)')
  local found, record = read_hash(delivery_key(name)), record_of(name)
  if found[target .. '|state'] ~= 'open' or not record.id then return leave_line(name, target) end
  local busy = tonumber(found[target .. '|until_ms'] or 0)
  local last = math.max(last_moment(found, target), busy)
  if NOW < last then
    redis.call('ZADD', 'fleet:deliveries', last, place)
    -- An earlier version had no lines.
    local lined_up = redis.call('ZSCORE', line_key(target), place) or found[target .. '|placed']
    if not lined_up then put_in_line(name, target, math.max(NOW, busy)) end
  else
    give_up(record, target, found[target .. '|reason'], keep_ms)
    given_up = given_up + 1
  end
end

local function hand_out(target, most)
  local line = line_key(target)
  for _, place in ipairs(redis.call('ZRANGEBYSCORE', line, '-inf', NOW, 'LIMIT', 0, most)) do
    local name = string.match(place, '%S+')
    local state, until_ms = unpack(redis.call('HMGET', delivery_key(name), target .. '|state',
      target .. '|until_ms'))
    if state ~= 'open' then
      leave_line(name, target)
    elseif tonumber(until_ms or 0) > NOW then
      redis.call('ZADD', line, until_ms, place)
    else
      redis.call('ZADD', line, NOW + again_ms, place)
      found_due[#found_due + 1] = place
    end
  end
end

-- Answers when the line is to be looked at again; nil for an empty one.
local function look(target)
  local free, soonest = free_slots(target, read_hash(target_key(target)))
  if free == 0 then return soonest end
  hand_out(target, math.min(free, limit - #found_due))
  return redis.call('ZRANGE', line_key(target), 0, 0, 'WITHSCORES')[2]
end

local targets = {ARG.target}
if ARG.target == '' then
  for _, place in ipairs(redis.call('ZRANGEBYSCORE', 'fleet:deliveries', '-inf', NOW, 'LIMIT', 0, limit)) do
    check_deadline(place)
  end
  targets = redis.call('ZRANGEBYSCORE', 'fleet:receivers', '-inf', NOW, 'LIMIT', 0, limit)
end
if ARG.target ~= 'upstream' and redis.call('LLEN', 'delivery') >= tonumber(ARG.queue_max) then
  targets = {}
end
for _, target in ipairs(targets) do
  if #found_due >= limit then break end
  local at_ms = look(target)
  redis.call('ZREM', 'fleet:receivers', target)
  if at_ms then look_at(target, at_ms) end
end
table.insert(found_due, 1, given_up)
return found_due

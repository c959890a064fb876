-- Outcomes that are announced to receivers: who has confirmed, and when the others are tried again.
-- Put after `_lib.lua` in the scripts whose legend says `With`.
--
-- Keys     fleet:deliveries, fleet:delivery:, fleet:target:, fleet:agent:, fleet:dispatch:,
--          fleet:outcome:, fleet:counts, fleet:totals, fleet:bus, and those of `finish`
--
-- A delivery's fields are `target|name`: state ('open', or how it was verified), deadline_ms, tries,
-- reason, token and until_ms (who sends it now, and for how long), last (the newest report's token).

-- Before a receiver is tried again, after so many failures in a row; then DELAY_MOST_MS. The first
-- is also the least.
local DELAYS_MS, DELAY_MOST_MS = {100, 200, 500, 1000, 2000}, 5000
-- What is known of a receiver is forgotten when nothing was sent to it for so long.
local TARGET_MS = 86400000
-- The worker that committed rings itself; beat does when nothing came of it.
local FIRST_RING_MS = 2000

local function delivery_key(id) return 'fleet:delivery:' .. id end
local function target_key(target) return 'fleet:target:' .. target end

-- The turn is over and has its outcome; agent and session are free. `targets` is a text of names,
-- each followed by the time (ms) that there is to reach it.
local function announce(record, fields, targets)
  leave_queue(record)
  leave_agent(record)
  move(record, 'announcing', plus({'announced_ms', NOW}, fields))
  next_in_session(record)
  for target, most_ms in string.gmatch(targets, '(%S+) (%d+)') do
    redis.call('HSET', delivery_key(record.id), target .. '|state', 'open', target .. '|tries', 0,
      target .. '|deadline_ms', string.format('%.0f', NOW + tonumber(most_ms)))
    redis.call('HINCRBY', delivery_key(record.id), '|open', 1)
    redis.call('ZADD', 'fleet:deliveries', NOW + FIRST_RING_MS, record.id .. ' ' .. target)
  end
end

-- One target has ended; with the last of them the dispatch is completed.
local function settle(record, target, verification, reason, keep_ms)
  local key = delivery_key(record.id)
  redis.call('HSET', key, target .. '|state', verification, target .. '|reason', reason)
  redis.call('HDEL', key, target .. '|token', target .. '|until_ms')
  redis.call('ZREM', 'fleet:deliveries', record.id .. ' ' .. target)
  tally(record.agent, 'delivery.' .. verification)
  emit('delivery_verified', plus(who(record), {'name', target, 'verification', verification,
    'reason', reason}))
  if verification ~= 'ack' then record.verification = verification end
  redis.call('HSET', dispatch_key(record.id), 'verification', record.verification or 'ack')
  if redis.call('HINCRBY', key, '|open', -1) > 0 then return end
  finish(record, 'completed', {}, {'elapsed_s', tonumber(record.elapsed_ms) / 1000,
    'verification', record.verification or 'ack'}, keep_ms)
  redis.call('PEXPIRE', 'fleet:outcome:' .. record.id, keep_ms)
  redis.call('PEXPIRE', key, keep_ms)
end

local function give_up(record, target, last, keep_ms)
  settle(record, target, 'timeout_fallback',
    'its deadline passed' .. (last and '; the last try: ' .. last or ' before it was tried'), keep_ms)
end

-- What one try says about a receiver; answers how long (ms) nobody tries it now. A sound one whose
-- delay is the least has none.
local function throttle(target, sample)
  local known = read_hash(target_key(target))
  local delay, failures = tonumber(known.delay_ms or DELAYS_MS[1]), tonumber(known.failures or 0)
  local streak = tonumber(known.streak or 0)
  local down = failures > #DELAYS_MS
  if sample == 'ack' then
    failures, streak = 0, streak + 1
    if streak == 3 then delay, streak = math.max(DELAYS_MS[1], math.floor(delay / 2)), 0 end
  elseif sample == 'unverified' then
    streak = 0
  else
    streak, failures = 0, failures + 1
    delay = DELAYS_MS[failures] or DELAY_MOST_MS
  end
  -- Told once when it is given the longest delay, and once when it is over.
  if down ~= (failures > #DELAYS_MS) then
    emit('alert', {'name', down and 'delivery_back' or 'delivery_down', 'reason',
      target .. (down and ' takes outcomes again' or ' takes no outcome, ' .. failures
        .. ' tries in a row failed: check deliveries.' .. target)})
  end
  local rest = (sample == 'failed' or delay > DELAYS_MS[1]) and delay or 0
  redis.call('HSET', target_key(target), 'delay_ms', delay, 'failures', failures, 'streak', streak,
    'next_ms', string.format('%.0f', NOW + rest))
  redis.call('PEXPIRE', target_key(target), TARGET_MS)
  return rest
end

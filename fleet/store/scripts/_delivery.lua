-- How receivers do: when they are tried again, and when no more. Put after `_announce.lua` in the
-- scripts whose legend says `With`.
--
-- Keys     fleet:target:, fleet:beat, fleet:back, fleet:bus, and those of `end_target`
--
-- A receiver's fields: delay_ms, failures, streak, hangs and down (see `throttle`), next_ms (nobody tries
-- it before), and `sending <call>`: until when an attempt under way may last.

-- Before a receiver is tried again, after so many failures in a row; then DELAY_MOST_MS. The first
-- is also the least.
local DELAYS_MS, DELAY_MOST_MS = {100, 200, 500, 1000, 2000}, 5000
-- What is known of a receiver is forgotten when nothing was sent to it for so long.
local TARGET_MS = 86400000
-- Attempts under way at once, over all processes: one receiver's cannot take every sender.
local SLOTS, UPSTREAM_SLOTS = 8, 32

local function target_key(target) return 'fleet:target:' .. target end

local function give_up(record, target, last, keep_ms)
  end_target(record, target, 'timeout_fallback',
    'its deadline passed' .. (last and '; last: ' .. last or ' before it was tried'), keep_ms)
end

-- When a delivery is given up; `found` are its fields. A fleet that was away has time to come back
-- first, and tries what waited for it once, within a day.
local function last_moment(found, target)
  local deadline, back = tonumber(found[target .. '|deadline_ms']), back_ms()
  if not back then return deadline end
  deadline = math.max(deadline, back + GRACE_MS)
  local tried = tonumber(found[target .. '|tried_ms'] or 0)
  local waited = tonumber(found['|opened_ms']) < back + GRACE_MS and tried < back
  return waited and not found[target .. '|placed'] and math.max(deadline, back + BACK_MS) or deadline
end

-- How many more attempts a receiver may get now, and otherwise when it may get one. A receiver in
-- trouble gets one at a time.
local function free_slots(target, known)
  if tonumber(known.next_ms or 0) > NOW then return 0, tonumber(known.next_ms) end
  local slots = target == 'upstream' and UPSTREAM_SLOTS or SLOTS
  if tonumber(known.failures or 0) + tonumber(known.hangs or 0) > 0 then slots = 1 end
  local soonest
  for name, until_ms in pairs(known) do
    if string.sub(name, 1, 8) == 'sending ' then
      if tonumber(until_ms) > NOW then
        slots, soonest = slots - 1, math.min(soonest or tonumber(until_ms), tonumber(until_ms))
      else
        redis.call('HDEL', target_key(target), name)
      end
    end
  end
  return math.max(slots, 0), soonest
end

-- What one try says about a receiver, which asked for `wished` ms of peace; answers how long (ms)
-- nobody tries it now. A sound one whose delay is the least has none. One that hangs rests by the same
-- table, and keeps the delay of its failures.
local function throttle(target, sample, wished)
  local known = read_hash(target_key(target))
  local delay, failures = tonumber(known.delay_ms or DELAYS_MS[1]), tonumber(known.failures or 0)
  local streak, hangs = tonumber(known.streak or 0), tonumber(known.hangs or 0)
  local down = math.max(failures, hangs) > #DELAYS_MS
  local rest, next_ms = 0, tonumber(known.next_ms or 0)
  if sample == 'ack' then
    failures, hangs, streak = 0, 0, streak + 1
    if streak == 3 then delay, streak = math.max(DELAYS_MS[1], math.floor(delay / 2)), 0 end
  elseif next_ms > NOW and failures + hangs > 0 then
    -- It was under way when the trouble was counted.
    streak, rest = 0, next_ms - NOW
  elseif sample == 'unverified' then
    streak, hangs = 0, hangs + 1
    rest = DELAYS_MS[hangs] or DELAY_MOST_MS
  else
    streak, failures = 0, failures + 1
    delay = DELAYS_MS[failures] or DELAY_MOST_MS
  end
  -- Told once when it is given the longest delay, and once when it is over. In between `down` says so.
  if down ~= (math.max(failures, hangs) > #DELAYS_MS) then
    local what = hangs > failures and ' tries in a row were not answered: check '
      or ' tries in a row failed: check '
    local reason = target .. (down and ' takes outcomes again' or ' takes no outcome, '
      .. math.max(failures, hangs) .. what
      .. (target == 'upstream' and 'upstream' or 'deliveries.' .. target))
    emit('alert', {'name', down and 'delivery_back' or 'delivery_down', 'reason', reason})
    if down then
      redis.call('HDEL', target_key(target), 'down')
    else
      redis.call('HSET', target_key(target), 'down', reason)
    end
  end
  rest = math.max((sample == 'failed' or delay > DELAYS_MS[1]) and delay or 0, rest, wished)
  redis.call('HSET', target_key(target), 'delay_ms', delay, 'failures', failures, 'streak', streak,
    'hangs', hangs, 'next_ms', string.format('%.0f', NOW + rest))
  redis.call('PEXPIRE', target_key(target), TARGET_MS)
  return rest
end

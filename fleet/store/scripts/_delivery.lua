-- How receivers do: when they are tried again, and when no more. Put after `_announce.lua` in the
-- scripts whose legend says `With`.
--
-- Keys     fleet:target:, fleet:bus, and those of `end_target`

-- Before a receiver is tried again, after so many failures in a row; then DELAY_MOST_MS. The first
-- is also the least.
local DELAYS_MS, DELAY_MOST_MS = {100, 200, 500, 1000, 2000}, 5000
-- What is known of a receiver is forgotten when nothing was sent to it for so long.
local TARGET_MS = 86400000

local function target_key(target) return 'fleet:target:' .. target end

local function give_up(record, target, last, keep_ms)
  end_target(record, target, 'timeout_fallback',
    'its deadline passed' .. (last and '; last: ' .. last or ' before it was tried'), keep_ms)
end

-- What one try says about a receiver, which asked for `wished` ms of peace; answers how long (ms)
-- nobody tries it now. A sound one whose delay is the least has none.
local function throttle(target, sample, wished)
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
        .. ' tries in a row failed: check '
        .. (target == 'upstream' and 'upstream' or 'deliveries.' .. target))})
  end
  local rest = math.max((sample == 'failed' or delay > DELAYS_MS[1]) and delay or 0, wished)
  redis.call('HSET', target_key(target), 'delay_ms', delay, 'failures', failures, 'streak', streak,
    'next_ms', string.format('%.0f', NOW + rest))
  redis.call('PEXPIRE', target_key(target), TARGET_MS)
  return rest
end

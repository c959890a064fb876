-- Running totals, and sums of an hour, a day and a week. Put after `_clock.lua`, before `_lib.lua`.
--
-- Keys     fleet:totals, fleet:sums:
-- A sum is a field of two hashes: that of its minute, and that of its quarter of an hour. Each hash ends by
-- itself, so there are never more than 125 and 772 of them. Sums are of the whole fleet.

-- Seconds of one hash, and how long it is kept.
local SUM_SIZES = {{60, 7500}, {900, 694800}}
-- The measures that have sums, each up to its first dot.
local SUMMED = {outcome = true, turn = true, failed = true, tokens_in = true, tokens_out = true, usd = true}
local sum_keys

local function add_sum(measure, by)
  if not SUMMED[string.match(measure, '^[%a_]+')] then return end
  local is_first = not sum_keys
  sum_keys = sum_keys or {}
  for place, size in ipairs(SUM_SIZES) do
    if is_first then sum_keys[place] = 'fleet:sums:' .. size[1] .. ':' .. math.floor(NOW / 1000 / size[1]) end
    local value = redis.call('HINCRBY', sum_keys[place], measure, by)
    -- One that is new may be the first of its hash.
    if value == tonumber(by) then redis.call('EXPIRE', sum_keys[place], size[2]) end
  end
end

-- Running totals for dashboards, counted in the move itself; whole numbers, which add up exactly.
local function tally(agent, measure, by)
  redis.call('HINCRBY', 'fleet:totals', agent .. '|' .. measure, by or 1)
  add_sum(measure, by or 1)
end

-- Sums of what happens, for charts of an hour, a day and a week. Put after `_clock.lua`, before `_lib.lua`.
--
-- Keys     fleet:sums:
-- A sum is a field of two hashes: that of its minute, and that of its quarter of an hour. Each hash ends by
-- itself, so there are never more than 125 and 772 of them. Sums are of the whole fleet.

-- Seconds of one hash, and how long it is kept.
local SUM_SIZES = {{60, 7500}, {900, 694800}}
-- The measures that have sums, each up to its first dot.
local SUMMED = {outcome = true, turn = true, turn_ms = true, attempts = true, failed = true, tokens_in = true,
  tokens_out = true, usd = true}
local lasting = {}

local function add_sum(measure, by)
  if not SUMMED[string.match(measure, '^[%a_]+')] then return end
  for _, size in ipairs(SUM_SIZES) do
    local key = string.format('%s%d:%d', 'fleet:sums:', size[1], math.floor(NOW / 1000 / size[1]))
    redis.call('HINCRBY', key, measure, by)
    if not lasting[key] then
      redis.call('EXPIRE', key, size[2])
      lasting[key] = true
    end
  end
end

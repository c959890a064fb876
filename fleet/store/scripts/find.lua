-- Find dispatches of an agent, or in some of the states: a bounded part of the index, newest acceptance first.
--
-- ARGV
--   agent      '' for any
--   below      the place in the index below which is searched, or '+inf'
--   found_max  most dispatches in the answer
--   seen_max   most dispatches examined in this call
--   states...  none for any
-- Keys     fleet:index, fleet:deadlines, fleet:dead, fleet:dispatch:
-- Returns  {the place below which the next call goes on, or '' at the end; id, place, id, place, ...}
-- Invariants
--   Changes nothing. Bounded per call.

-- The lists that have all dispatches of a state: a short one is read in place of the index.
local LISTS = {queued = 'fleet:deadlines', retrying = 'fleet:deadlines', parked = 'fleet:deadlines',
  dead = 'fleet:dead'}

local wanted, lists, any = {}, {}, true
for i = ARG.states + 1, ARG.states + ARGV[ARG.states] do
  wanted[ARGV[i]] = true
  lists[LISTS[ARGV[i]] or 'fleet:index'] = true
  any = false
end

-- Ids and places of a list that is short enough, in the order of the index; nil of a longer one.
local function short_list(list)
  if not list or next(lists, list) or redis.call('ZCARD', list) > tonumber(ARG.seen_max) then return nil end
  local below = ARG.below == '+inf' and math.huge or tonumber(string.sub(ARG.below, 2))
  local rows, flat = {}, {}
  for _, id in ipairs(redis.call('ZRANGE', list, 0, -1)) do
    local place = redis.call('ZSCORE', 'fleet:index', id)
    if place and tonumber(place) < below then rows[#rows + 1] = {id, place} end
  end
  table.sort(rows, function(one, other) return tonumber(one[2]) > tonumber(other[2]) end)
  for i, row in ipairs(rows) do flat[2 * i - 1], flat[2 * i] = row[1], row[2] end
  return flat
end

local short = short_list(next(lists))
local rows = short or redis.call('ZRANGE', 'fleet:index', ARG.below, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0,
  ARG.seen_max, 'WITHSCORES')
local found, left = {''}, tonumber(ARG.found_max)
for i = 1, #rows, 2 do
  local mark = redis.call('HMGET', dispatch_key(rows[i]), 'agent', 'state')
  if (ARG.agent == '' or mark[1] == ARG.agent) and (any or wanted[mark[2]]) then
    found[#found + 1] = rows[i]
    found[#found + 1] = rows[i + 1]
    left = left - 1
    if left == 0 then
      found[1] = '(' .. rows[i + 1]
      return found
    end
  end
end
if not short and #rows == 2 * tonumber(ARG.seen_max) then found[1] = '(' .. rows[#rows] end
return found

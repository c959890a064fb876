-- Keep retention: forget ended dispatches that are too old or too many, and trim the bus by age.
--
-- ARGV
--   keep_ended_ms
--   keep_dead_ms
--   kept_max       most dispatches of each kind that are kept
--   keep_bus_ms
--   limit          most dispatches to forget in this call
-- Keys     fleet:ended, fleet:dead, fleet:index, fleet:ids, fleet:event_ids, fleet:dispatch:,
--          fleet:journal:, fleet:outcome:, fleet:callback:, fleet:failures:, fleet:delivery:,
--          fleet:event:, fleet:payload:, fleet:counts, fleet:bus
-- Returns  {forgotten ended, forgotten dead, trimmed bus entries, 1 when there may be more to forget}
-- Invariants
--   Only terminal dispatches are forgotten. Bounded per call. A dead letter that is pushed out by
--   newer ones is announced as dropped. A dispatch with an open receiver, or
--   whose turn is not known to be dead, is kept, as if it had ended now. The
--   newest bus entry stays: a client that has read it has missed nothing.
--   `fleet:ids` has what the index has, also of dispatches made by a version that had no such list.

-- Take an ended dispatch out of the books. Its event goes on telling duplicates until its own time,
-- but the payload leaves with the last dispatch.
local function forget(record)
  erase(record)
  local event = 'fleet:event:' .. record.event
  if redis.call('EXISTS', event) == 0 or redis.call('HINCRBY', event, 'kept', -1) <= 0 then
    redis.call('DEL', 'fleet:payload:' .. record.event)
    redis.call('ZREM', 'fleet:event_ids', record.event_id .. '\n' .. record.event)
  end
end

local keep = {['fleet:ended'] = tonumber(ARG.keep_ended_ms), ['fleet:dead'] = tonumber(ARG.keep_dead_ms)}
local most, limit = tonumber(ARG.kept_max), tonumber(ARG.limit)
local forgotten, more = {}, 0

for _, list in ipairs({'fleet:ended', 'fleet:dead'}) do
  local old = redis.call('ZRANGEBYSCORE', list, '-inf', NOW - keep[list], 'LIMIT', 0, limit)
  local over = redis.call('ZCARD', list) - #old - most
  if over > 0 then
    old = redis.call('ZRANGE', list, 0, math.min(#old + over, limit) - 1)
  end
  local kept = 0
  if #old == limit then more = 1 end
  for _, id in ipairs(old) do
    local record = read_hash(dispatch_key(id))
    if record.id and (tonumber(redis.call('HGET', 'fleet:delivery:' .. id, '|open') or 0) > 0
      or redis.call('HGET', agent_key(record.agent), 'active') == id
      or redis.call('SISMEMBER', running_key(record.agent), id) == 1) then
      -- Behind what ended in this millisecond, too.
      redis.call('ZADD', list, NOW + 1, id)
      kept = kept + 1
    else
      if record.id then
        if list == 'fleet:dead' then
          emit('dispatch_dropped', plus(who(record), {'reason', 'retention of dead letters'}))
        end
        forget(record)
      end
      redis.call('ZREM', list, id)
      redis.call('ZREM', 'fleet:index', id)
      redis.call('ZREM', 'fleet:ids', id)
    end
  end
  forgotten[#forgotten + 1] = #old - kept
end

if redis.call('ZCARD', 'fleet:ids') ~= redis.call('ZCARD', 'fleet:index') then
  redis.call('ZUNIONSTORE', 'fleet:ids', 1, 'fleet:index', 'WEIGHTS', 0)
end

local age_ms, cut = NOW - tonumber(ARG.keep_bus_ms), '0-0'
local newest = redis.call('XREVRANGE', 'fleet:bus', '+', '-', 'COUNT', 1)[1]
if newest then
  local newest_ms = tonumber(string.match(newest[1], '^%d+'))
  cut = newest_ms < age_ms and newest[1] or string.format('%.0f', math.max(age_ms, 0)) .. '-0'
end
forgotten[#forgotten + 1] = redis.call('XTRIM', 'fleet:bus', 'MINID', cut)
forgotten[#forgotten + 1] = more
return forgotten

-- Give a waiting dispatch, or a dead letter, to another agent, in its old place.
--
-- ARGV
--   dispatch_id
--   agent        the one it is for now
--   to           the one it is for afterwards
-- Keys     fleet:dispatch:, fleet:due:, fleet:counts, fleet:event:, agent.<agent>, fleet:rings, fleet:bus
-- Returns  its state when it was given to the other, or ''
-- Invariants
--   A running one, and one that has ended otherwise, stays as it is. The id, the journal, the deadline and the
--   place in its session stay: what was paid for is not paid again. A repeated call changes nothing.

local id, from, to = ARG.dispatch_id, ARG.agent, ARG.to
local record = read_hash(dispatch_key(id))
local moves = {queued = true, retrying = true, dead = true}
if record.agent ~= from or not moves[record.state] then return '' end

count(from, record.state, -1)
count(to, record.state, 1)
redis.call('HSET', dispatch_key(id), 'agent', to)
record.agent = to

-- In these lists each id is followed by its agent.
local event = 'fleet:event:' .. record.event
for _, list in ipairs({'ids', 'later'}) do
  local words = redis.call('HGET', event, list) or ''
  local _, mark = string.find(words, id .. ' ', 1, true)
  if mark then
    local rest = string.gsub(string.sub(words, mark + 1), '^%S+', to)
    redis.call('HSET', event, list, string.sub(words, 1, mark) .. rest)
  end
end

local order = redis.call('ZSCORE', due_key(from), id)
if order then
  redis.call('ZREM', due_key(from), id)
  make_due(to, id, order)
end
if record.state ~= 'dead' then
  emit('dispatch_queued', plus(who(record), {'reason', 'moved from ' .. from}))
end
return record.state

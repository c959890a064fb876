-- What intake refuses although the event is right, and who makes room. Put after `_lib.lua` in the
-- scripts whose legend says `With`.
--
-- Keys     fleet:lost, fleet:deadlines, fleet:memory, fleet:sender:, fleet:counts, fleet:due:

-- Dispatches examined when an agent that drops its oldest is full; a longer queue is examined in part.
local SCAN_MAX = 1000

-- The server is asked for its memory this often at most: it costs a tenth of an acceptance.
local MEMORY_MS = 100

-- True while more than `share` of the server's `maxmemory` is used.
local function is_full(share)
  local asked_ms, used, most = unpack(redis.call('HMGET', 'fleet:memory', 'asked_ms', 'used', 'most'))
  if not asked_ms or math.abs(NOW - tonumber(asked_ms)) >= MEMORY_MS then
    local memory = redis.call('INFO', 'memory')
    used, most = string.match(memory, 'used_memory:(%d+)'), string.match(memory, '[^_]maxmemory:(%d+)')
    redis.call('HSET', 'fleet:memory', 'asked_ms', NOW, 'used', used, 'most', most)
  end
  return tonumber(most) > 0 and tonumber(used) > tonumber(most) * tonumber(share)
end

-- Why nobody's event is accepted while this script runs: {} for no reason.
local closed
-- How many dispatches wait, where the script counts them itself.
local counted_waiting

-- Why no event is accepted now, from anybody or from this sender, or nil. `most_waiting` counts over
-- all agents; `a_minute` is of one sender, '' for no limit.
local function refusal(sender, memory, most_waiting, a_minute)
  if not closed then
    local lost = redis.call('HGET', 'fleet:lost', 'reason')
    closed = lost and {'lost', lost} or is_full(memory) and {'memory'} or {}
  end
  if closed[1] then return closed end
  local waiting = counted_waiting or redis.call('ZCARD', 'fleet:deadlines')
  if waiting >= tonumber(most_waiting) then return {'crowded', waiting} end
  if a_minute ~= '' then
    local key = 'fleet:sender:' .. redis.sha1hex(sender)
    if count_in_minute(key) > tonumber(a_minute) then return {'sender', redis.call('PTTL', key)} end
  end
  return nil
end

-- The id of what the agent could best do without, to make room for an event of this urgency: the oldest
-- of the least urgent that wait. Nil when all that waits is more urgent, or waits for its session.
local function dispensable(agent, priority)
  local victim
  for _, id in ipairs(redis.call('ZRANGE', due_key(agent), 0, SCAN_MAX - 1)) do
    local record = read_hash(dispatch_key(id))
    if record.state == 'queued' and tonumber(record.priority) <= tonumber(priority) then
      local less = victim and tonumber(record.priority) - tonumber(victim.priority) or -1
      if less < 0 or (less == 0 and tonumber(record.seq) < tonumber(victim.seq)) then
        victim = record
      end
    end
  end
  return victim and victim.id
end

-- End it, so that another can take its place; it may have ended since it was chosen, as the other member
-- of a stage that another's drop has decided.
local function drop(id, keep_ms)
  local victim = read_hash(dispatch_key(id))
  if victim.state ~= 'queued' then return end
  local reason = 'a newer event took its place in a full queue'
  finish(victim, 'dropped', {'stage', 'admission', 'error', reason},
    {'stage', 'admission', 'reason', reason}, keep_ms)
  emit('delivery_dropped', {'name', victim.agent, 'agent', victim.agent, 'count', 1, 'reason', reason,
    'sender', victim.source, 'dispatch_id', victim.id, 'event_id', victim.event_id})
end

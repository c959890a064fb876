-- Everything that a scrape shows of the store, of one moment. Changes nothing.
--
-- ARGV
--   agents...  the names of the agents
-- Keys     fleet:totals, fleet:counts, fleet:beat, fleet:seq, fleet:bus, fleet:due:,
--          fleet:providers, fleet:agent:, fleet:lease:, fleet:dispatch:
-- Returns  JSON: `now` (ms), `accepted`, `bus`, and as flat lists of names and values `totals`,
--          `counts`, `beat`, `providers`; `agents`: for each, in the order asked, {online, paused,
--          running since (ms) or 0, oldest runnable one queued since (ms) or 0}
-- Invariants
--   Bounded: an agent's oldest is looked for at the head of each priority, never in the whole list.

-- The oldest of an agent's runnable dispatches: of each priority that any has, the first.
local function oldest(agent)
  local key, found = due_key(agent), 0
  local lane, size = '-inf', 4398046511104
  for _ = 0, 10 do
    local head = redis.call('ZRANGEBYSCORE', key, lane, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not head[1] then break end
    local since = tonumber(redis.call('HGET', dispatch_key(head[1]), 'queued_ms') or 0)
    if since > 0 and (found == 0 or since < found) then found = since end
    lane = string.format('%.0f', (math.floor(math.max(tonumber(head[2]), -1) / size) + 1) * size)
  end
  return found
end

local agents = {}
for i = ARG.agents + 1, ARG.agents + ARGV[ARG.agents] do
  local agent = ARGV[i]
  local active, paused, claimed = unpack(redis.call('HMGET', agent_key(agent),
    'active', 'paused', 'claimed_ms'))
  agents[#agents + 1] = {lease_name(agent) and 1 or 0, paused and 1 or 0,
    active and tonumber(claimed or 0) or 0, oldest(agent)}
end
return cjson.encode({
  now = NOW,
  accepted = tonumber(redis.call('GET', 'fleet:seq') or 0),
  bus = redis.call('XLEN', 'fleet:bus'),
  totals = redis.call('HGETALL', 'fleet:totals'),
  counts = redis.call('HGETALL', 'fleet:counts'),
  providers = redis.call('HGETALL', 'fleet:providers'),
  beat = redis.call('HGETALL', 'fleet:beat'),
  agents = agents,
})

-- Everything that a scrape shows of the store, of one moment. Changes nothing.
--
-- ARGV
--   agents...  the names of the agents
-- With     _pool_workers
-- Keys     fleet:totals, fleet:counts, fleet:beat, fleet:seq, fleet:bus, fleet:due:,
--          fleet:providers, fleet:agent:, fleet:lease:, fleet:dispatch:, fleet:pools, fleet:pool:, fleet:running:
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

local living = {}

-- True when the agent is of a pool that has a worker.
local function pool_lives(agent)
  local pool = pool_of(agent)
  if not pool then return false end
  if living[pool] == nil then
    living[pool] = false
    for _, name in ipairs(redis.call('HKEYS', pool_key(pool))) do
      local _, until_ms = read_worker(pool, name)
      if until_ms and until_ms > NOW then living[pool] = true end
    end
  end
  return living[pool]
end

local agents = {}
for i = ARG.agents + 1, ARG.agents + ARGV[ARG.agents] do
  local agent = ARGV[i]
  local active, paused, claimed = unpack(redis.call('HMGET', agent_key(agent),
    'active', 'paused', 'claimed_ms'))
  local runs = active or redis.call('SCARD', running_key(agent)) > 0
  agents[#agents + 1] = {(lease_name(agent) or pool_lives(agent)) and 1 or 0, paused and 1 or 0,
    runs and tonumber(claimed or 0) or 0, oldest(agent)}
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

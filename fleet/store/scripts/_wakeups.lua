-- Keys, wake-ups and the line of a pool. Put before `_lib.lua`.
--
-- Keys     fleet:rings, fleet:pools, fleet:ready:, fleet:rests, fleet:served, fleet:running:, fleet:due:, fleet:lease:, fleet:dispatch:,
--          fleet:agent:, agent.<agent>, pool.<pool>
-- Two arguments come before those in a script's legend and are removed here: the approximate
-- length at which the bus is trimmed, and the wake-up as text with places to fill, or '' where the
-- broker is not this store.

local BUS_MAX, TEMPLATE = table.remove(ARGV, 1), table.remove(ARGV, 1)

local function dispatch_key(id) return 'fleet:dispatch:' .. id end
local function agent_key(agent) return 'fleet:agent:' .. agent end
local function due_key(agent) return 'fleet:due:' .. agent end
local function lease_key(agent) return 'fleet:lease:' .. agent end
local function running_key(agent) return 'fleet:running:' .. agent end
local function ready_key(pool) return 'fleet:ready:' .. pool end

-- The template with its places filled. Cut once, by plain searches: a pattern would look at every
-- character of it for each wake-up.
local pieces
local function wakeup_message(values)
  if not pieces then
    pieces = {}
    local from = 1
    while from do
      local mark = string.find(TEMPLATE, '|', from, true)
      pieces[#pieces + 1] = string.sub(TEMPLATE, from, mark and mark - 1 or -1)
      from = mark and mark + 1
    end
  end
  local text = {}
  for i = 1, #pieces do text[i] = i % 2 == 1 and pieces[i] or values[pieces[i]] end
  return table.concat(text)
end

-- Push a wake-up: one Celery message that holds the dispatch's id. Where the broker is not this
-- store the caller publishes.
local function push(queue, id)
  if TEMPLATE == '' then return end
  local tag = redis.call('INCR', 'fleet:rings')
  redis.call('LPUSH', queue, wakeup_message({QUEUE = queue, ID = id, TAG = id .. '.' .. tag}))
end

-- The pool whose workers run the agent's turns, how many at once, and its weight; nil for one that has a
-- worker of its own.
local function pool_of(agent)
  local place = redis.call('HGET', 'fleet:pools', agent)
  if not place then return nil end
  local parallel, weight, pool = string.match(place, '^(%S+) (%S+) (%S+)$')
  return pool, tonumber(parallel), tonumber(weight)
end

-- Put an agent of a pool in the line of those that may begin a turn, and push a wake-up, where it has
-- work, room, and no rest. The line goes by the turns that each has had, so that all take turns.
local function make_ready(agent, pool, parallel)
  local paused, hold, served, active = unpack(redis.call('HMGET', agent_key(agent),
    'paused', 'hold_ms', 'served', 'active'))
  -- An active one was left by a worker of the agent's own.
  local first = redis.call('ZRANGE', due_key(agent), 0, 0)[1] or active
  if not first or redis.call('SCARD', running_key(agent)) >= parallel then return end
  if paused then return end
  if tonumber(hold or 0) > NOW then
    redis.call('ZADD', 'fleet:rests', hold, agent)
    return
  end
  -- One that was away has no credit for it.
  local place = math.max(tonumber(served or 0), tonumber(redis.call('HGET', 'fleet:served', pool) or 0))
  if redis.call('ZADD', ready_key(pool), 'NX', place, agent) == 1 then push('pool.' .. pool, first) end
end

-- Put a dispatch into its agent's list of runnable ones, and wake who runs them.
local function make_due(agent, id, order)
  redis.call('ZADD', due_key(agent), order, id)
  local pool, parallel = pool_of(agent)
  if pool then make_ready(agent, pool, parallel) else push('agent.' .. agent, id) end
end

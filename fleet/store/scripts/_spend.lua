-- What a dispatch has cost, counted when it is known and once. Put after `_lib.lua` in the scripts whose
-- legend says `With`.
--
-- Keys     fleet:totals, fleet:spend:

local per_unit = {tokens_in = 1, tokens_out = 1, usd = 1e6}

-- `now` in all, of which `before` was counted. It counts for the day on which it is counted.
local function charge(agent, name, before, now)
  if now <= before then return end
  local day, unit = 'fleet:spend:' .. math.floor(NOW / 86400000), per_unit[name]
  tally(agent, name, math.floor(now * unit + 0.5) - math.floor(before * unit + 0.5))
  redis.call(name == 'usd' and 'HINCRBYFLOAT' or 'HINCRBY', day, agent .. '|' .. name, now - before)
  redis.call('PEXPIRE', day, 259200000)
end

-- What one step has cost: tokens in, tokens out, dollars.
local function pay(id, agent, costs)
  for place, name in ipairs({'tokens_in', 'tokens_out', 'usd'}) do
    local cost = tonumber(costs[place])
    if cost > 0 then
      local before = tonumber(redis.call('HGET', dispatch_key(id), name) or 0)
      charge(agent, name, before, before + cost)
      redis.call('HSET', dispatch_key(id), name,
        string.format(name == 'usd' and '%.9f' or '%.0f', before + cost))
    end
  end
end

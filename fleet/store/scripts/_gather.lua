-- Writes of a script that makes many moves, put together. Put after `_sums.lua`, before `_wakeups.lua`.
--
-- Keys     fleet:counts, fleet:seq
-- Between `gather` and `write_out` a write by `put` waits, and each key is written once for all of them.
-- A script that reads what may wait calls `write_out` first; it is atomic either way.

-- key -> the command with its arguments, and the keys in their order; nil while nothing is gathered.
local gathered, gathered_keys
-- `agent|state` -> the number of dispatches as it was read, and the changes that wait.
local counts_read, counts_changed
-- The newest acceptance, and how many of them wait to be counted.
local newest_seq, seqs_taken
-- Arguments of one command; Lua passes 8,000 at most.
local GATHERED_MAX = 2000

local function gather()
  if gathered then return end
  gathered, gathered_keys, counts_read, counts_changed = {}, {}, {}, {}
  newest_seq, seqs_taken = nil, 0
end

-- A ZADD or LPUSH.
local function put(command, key, ...)
  if not gathered then return redis.call(command, key, ...) end
  local words = gathered[key]
  if not words then
    words = {command, key}
    gathered[key], gathered_keys[#gathered_keys + 1] = words, key
  end
  for i = 1, select('#', ...) do words[#words + 1] = select(i, ...) end
  if #words > GATHERED_MAX then
    redis.call(unpack(words))
    gathered[key] = {command, key}
  end
end

-- Change the number of an agent's dispatches in a state.
local function count(agent, state, by)
  local field = agent .. '|' .. state
  if not gathered then return redis.call('HINCRBY', 'fleet:counts', field, by) end
  counts_changed[field] = (counts_changed[field] or 0) + by
end

-- The number of an agent's dispatches in a state.
local function count_of(agent, state)
  local field = agent .. '|' .. state
  if not gathered then return tonumber(redis.call('HGET', 'fleet:counts', field) or 0) end
  counts_read[field] = counts_read[field] or tonumber(redis.call('HGET', 'fleet:counts', field) or 0)
  return counts_read[field] + (counts_changed[field] or 0)
end

-- The number of the next acceptance.
local function next_seq()
  if not gathered then return redis.call('INCR', 'fleet:seq') end
  newest_seq = (newest_seq or tonumber(redis.call('GET', 'fleet:seq') or 0)) + 1
  seqs_taken = seqs_taken + 1
  return newest_seq
end

local function write_out()
  if not gathered then return end
  for _, key in ipairs(gathered_keys) do
    if #gathered[key] > 2 then redis.call(unpack(gathered[key])) end
  end
  for field, by in pairs(counts_changed) do redis.call('HINCRBY', 'fleet:counts', field, by) end
  if seqs_taken > 0 then redis.call('INCRBY', 'fleet:seq', seqs_taken) end
  gathered = nil
end

-- The test behind every write of a holder. Put after `_lib.lua` in the scripts whose legend says `With`.
--
-- Keys     fleet:fences, fleet:agent:, fleet:dispatch:
-- A token alone may be given again, by a store that has lost its last writes, as a promoted replica has.
-- So each holder draws a random name for its lease, which is compared besides. A turn in a pool has a
-- lease of its own, whose token and name are on the record alone.

-- True while `fence` is the newest token of the agent, and `lease` the name that its holder drew.
local function newest(agent, fence, lease)
  return redis.call('HGET', 'fleet:fences', agent) == fence
    and redis.call('HGET', agent_key(agent), 'lease') == lease
end

-- The agent of a dispatch whose attempt runs now under the newest lease, or nil; and why to cancel it.
local function current(id, fence, lease, attempt)
  local state, agent, its_fence, its_lease, its_attempt, cancel, pool = unpack(redis.call('HMGET',
    dispatch_key(id), 'state', 'agent', 'fence', 'lease', 'attempt', 'cancel', 'pool'))
  local its = state == 'active' and its_fence == fence and its_lease == lease and its_attempt == attempt
  if its and (pool or newest(agent, fence, lease)) then return agent, cancel end
  return nil
end

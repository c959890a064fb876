-- Release a lease on an orderly stop; a turn still active is queued again without a counted loss.
--
-- ARGV
--   agent
--   fence
--   lease
-- With     _announce, _chain, _failures, _loss
-- Keys     fleet:lease:, fleet:agent:, fleet:dispatch:, fleet:due:, fleet:deadlines, fleet:counts,
--          fleet:session:, fleet:sessions, fleet:bus
-- Returns  1 when it was the caller's, else 0
-- Invariants
--   Only the holder releases. A dispatch that was queued again is the agent's next one. A dispatch
--   that an earlier holder left active stays so, for the next claim to find.

local agent, fence = ARG.agent, ARG.fence
local key = lease_key(agent)
if redis.call('HGET', key, 'lease') ~= ARG.lease then return 0 end

local id = redis.call('HGET', agent_key(agent), 'active')
if id then
  local record = read_hash(dispatch_key(id))
  if record.state == 'active' and record.lease == ARG.lease then
    hand_back(record)
    redis.call('HDEL', agent_key(agent), 'active')
  end
end
end_stopped(agent)
redis.call('DEL', key)
redis.call('HDEL', agent_key(agent), 'holder')
emit('agent_offline', {'agent', agent, 'reason', 'stopped', 'fence', fence})
return 1

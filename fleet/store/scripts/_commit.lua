-- Who may end an attempt. Put after `_lib.lua`, `_holder.lua` and `_ending.lua` in the scripts whose legend says
-- `With`.
--
-- Keys     fleet:dispatch:, fleet:agent:

-- End an attempt with an `EndingArgs`, as `commit.lua` says; `id` and `attempt` are '' for the agent's active one.
local function commit(id, agent, fence, lease, attempt, ending)
  if id == '' then
    id = redis.call('HGET', agent_key(agent), 'active') or ''
    attempt = redis.call('HGET', dispatch_key(id), 'attempt') or ''
  end
  local record = read_hash(dispatch_key(id))
  if not record.id then return {'gone'} end
  if record.committed == attempt .. '/' .. fence and record.lease == lease then
    return {'done', record.state}
  end
  local ours = record.lease == lease and record.attempt == attempt
  if record.state ~= 'active' or not ours or record.fence ~= fence
    or not (record.pool or newest(agent, fence, lease)) then
    if ours and record.pool then end_stopped_turn(record) elseif ours then end_stopped(agent) end
    return {'fenced'}
  end
  return end_attempt(record, fence, NOW - tonumber(record.started_ms), ending)
end

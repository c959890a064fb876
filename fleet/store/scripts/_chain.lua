-- Chains, and how a dispatch is made. Put after `_announce.lua` in the scripts that make dispatches or end
-- them, whose legend says `With`.
--
-- Keys     fleet:seq, fleet:index, fleet:ids, fleet:deadlines, fleet:event:, fleet:outcome:, fleet:chain:,
--          fleet:trail:
-- A chain's stages are dispatches like any other, made one stage after the other. The script that
-- ends a stage's last needed dispatch makes the next stage's in the same step, so there is no moment
-- at which a chain could be lost, and nobody has to look after it.
-- Its plan, with every name resolved, is in its record: a change of the configuration is for later
-- events.

local function chain_key(id) return 'fleet:chain:' .. id end
local function trail_key(id) return 'fleet:trail:' .. id end

-- The id of a stage's dispatch, as `keys.stage_dispatch_id` derives it: a UUID of version 5.
local NAMESPACE = '\93\11\123\78\60\26\95\87\159\14\106\28\126\156\47\17'
local function stage_dispatch_id(chain, stage, round, agent)
  -- A chain that an earlier version began has no `key`.
  local key = chain.key or chain.source .. '\n' .. chain.event_id
  local hex = redis.sha1hex(NAMESPACE .. key .. '\nchain:' .. chain.name .. '\n' .. stage .. '\n'
    .. round .. '\n' .. agent)
  local variant = string.format('%x', tonumber(string.sub(hex, 17, 17), 16) % 4 + 8)
  return table.concat({string.sub(hex, 1, 8), string.sub(hex, 9, 12), '5' .. string.sub(hex, 14, 16),
    variant .. string.sub(hex, 18, 20), string.sub(hex, 21, 32)}, '-')
end

-- Announce that a person has to decide, and how.
local function park(record, deadline)
  local how = record.person .. ' is asked to decide: fleet approve ' .. record.id
    .. ', or fleet reject ' .. record.id .. ' --reason R'
  emit('dispatch_parked', plus(who(record), {'reason', how,
    'expires_at', string.format('%.3f', deadline / 1000)}))
  emit('alert', plus({'name', 'approval_needed', 'reason', how}, who(record)))
end

-- The origin of an event as fields: its sender, none for one from inside, and the dispatch whose event
-- was sent again as this one.
local function origin(of)
  local fields = of.sent_by and {'sent_by', of.sent_by} or {}
  return plus(fields, of.resent_from and {'resent_from', of.resent_from} or {})
end

-- A new record, which waits nowhere yet, and its deadline. `of` holds what it shares with others of its
-- event: event, event_id, source, sent_by, resent_from, session, priority. `more` are further fields; with a
-- `person` it waits for that one. `seq` is its age in line, if not of now.
local function create(of, id, agent, within_ms, more, seq)
  -- The event was forgotten and comes again; a sweep has not yet been where its record is.
  local left = read_hash(dispatch_key(id))
  if left.id then erase(left) end
  local newest, deadline = next_seq(), NOW + within_ms
  local record = {id = id, agent = agent, event_id = of.event_id, session = of.session,
    priority = of.priority, seq = seq or newest}
  -- Lane first, then age: 2^42 acceptances fit below one step of priority, exact in a double.
  record.order = string.format('%.0f', (9 - tonumber(of.priority)) * 4398046511104 + record.seq)
  for i = 1, #more, 2 do record[more[i]] = more[i + 1] end
  move(record, record.person and 'parked' or 'queued', plus({'id', id, 'agent', agent,
    'event', of.event, 'event_id', of.event_id, 'source', of.source, 'session', of.session,
    'priority', of.priority, 'order', record.order, 'seq', record.seq, 'attempt', 0, 'losses', 0,
    'generation', 1, 'accepted_ms', NOW, 'queued_ms', NOW,
    'deadline_ms', string.format('%.0f', deadline)}, plus(origin(of), more)))
  put('ZADD', 'fleet:index', newest, id)
  put('ZADD', 'fleet:ids', 0, id)
  return record, deadline
end

-- Add to the lists of waiting dispatches, except its agent's, and to the bus.
local function line_up(record, deadline)
  put('ZADD', 'fleet:deadlines', deadline, record.id)
  if record.session ~= '' then
    redis.call('ZADD', session_key(record.session), record.seq, record.id)
  end
  if record.person then park(record, deadline) else emit('dispatch_queued', who(record)) end
end

-- Dispatches for which the caller publishes where the broker is not this store: `id agent` of each.
local unnotified = {}

-- Make the dispatches of a stage; `id agent` of each.
local function begin_stage(chain, plan, stage, round)
  local rule, made = plan.stages[stage], {}
  chain.stage, chain.round = tostring(stage), tostring(round)
  redis.call('HSET', chain_key(chain.id), 'stage', stage, 'round', round, 'open', #rule.members,
    'approve', 0, 'reject', 0, 'revise', 0, 'dead', 0, 'cancelled', 0, 'expired', 0, 'dropped', 0)
  redis.call('HINCRBY', 'fleet:event:' .. chain.event, 'open', #rule.members)
  redis.call('HINCRBY', 'fleet:event:' .. chain.event, 'kept', #rule.members)
  local fields = {'chain', chain.name, 'chain_id', chain.id, 'chain_stage', chain.stage,
    'chain_stages', tostring(#plan.stages), 'round', chain.round}
  if rule.person then plus(fields, {'person', rule.person}) end
  for i, member in ipairs(rule.members) do
    local id = stage_dispatch_id(chain, chain.stage, chain.round, member.agent)
    local record, deadline = create(chain, id, member.agent, member.deadline_ms, fields,
      chain.last_seq - #rule.members + i)
    line_up(record, deadline)
    if not record.person then
      offer(record)
      if TEMPLATE == '' then unnotified[#unnotified + 1] = id .. ' ' .. member.agent end
    end
    made[#made + 1] = id .. ' ' .. member.agent
  end
  return made
end

-- Record a stage's end for the later stages.
local function record_ended(chain, rule, record, to)
  redis.call('HSET', trail_key(chain.id), record.id, cjson.encode({
    n = redis.call('HLEN', trail_key(chain.id)), stage = tonumber(chain.stage), name = rule.name,
    round = tonumber(chain.round), agent = record.agent, state = to, verdict = record.verdict,
    answer = record.said or redis.call('GET', 'fleet:outcome:' .. record.id) or ''}))
end

local function end_chain(chain, outcome, reason, keep_ms)
  chain.state, chain.reason = outcome, reason
  redis.call('HSET', chain_key(chain.id), 'state', outcome, 'reason', reason, 'ended_ms', NOW)
  redis.call('PEXPIRE', chain_key(chain.id), keep_ms + RECORD_GRACE_MS)
  redis.call('PEXPIRE', trail_key(chain.id), keep_ms)
  local fields = {'event_id', chain.event_id, 'chain', chain.name, 'chain_id', chain.id,
    'outcome', outcome, 'reason', reason}
  if chain.session ~= '' then plus(fields, {'session', chain.session}) end
  emit('chain_ended', fields)
end

-- A stage that is decided needs no more votes: those that wait are cancelled, a running one is
-- asked to stop. Called when the chain is elsewhere already, so that they no longer count.
local function dismiss(chain, rule, stage, round, keep_ms)
  local why = 'its stage was decided without it'
  for _, member in ipairs(rule.members) do
    local other = read_hash(dispatch_key(stage_dispatch_id(chain, stage, round, member.agent)))
    if other.state == 'queued' or other.state == 'retrying' then
      finish(other, 'cancelled', {'error', why}, {'reason', why}, keep_ms)
    elseif other.state == 'active' then
      redis.call('HSET', dispatch_key(other.id), 'cancel', why)
    end
  end
end

-- Another stage; the event knows its dispatches too.
local function move_to(chain, plan, stage, round)
  local event = 'fleet:event:' .. chain.event
  local later = {redis.call('HGET', event, 'later') or nil}
  plus(later, begin_stage(chain, plan, stage, round))
  redis.call('HSET', event, 'later', table.concat(later, ' '))
end

-- The next stage, or the end of the chain.
local function go_on(chain, plan, keep_ms)
  local stage = tonumber(chain.stage)
  if stage < #plan.stages then
    move_to(chain, plan, stage + 1, chain.round)
  elseif tonumber(redis.call('HGET', chain_key(chain.id), 'passed')) > 0 then
    end_chain(chain, 'completed', 'every stage is through', keep_ms)
  else
    end_chain(chain, 'dead', 'every stage failed', keep_ms)
  end
end

-- Back to the nearest stage before this one that is not a person's, if that may still be.
local function go_back(chain, plan, keep_ms)
  local stage = tonumber(chain.stage)
  if tonumber(chain.revisions) >= plan.max_revisions then
    return end_chain(chain, 'rejected', 'stage ' .. stage .. ' (' .. plan.stages[stage].name
      .. ') asks for a revision, and there were ' .. chain.revisions .. ' already', keep_ms)
  end
  redis.call('HINCRBY', chain_key(chain.id), 'revisions', 1)
  local back = math.max(1, stage - 1)
  while back > 1 and plan.stages[back].person do back = back - 1 end
  move_to(chain, plan, back, chain.round + 1)
end

-- Called by `finish`. Votes of a stage that the chain has left do not count.
advance = function(record, to, keep_ms)
  local chain = read_hash(chain_key(record.chain_id))
  if chain.state ~= 'running' or chain.stage ~= record.chain_stage or chain.round ~= record.round then
    return
  end
  local plan, stage, round = cjson.decode(chain.plan), chain.stage, chain.round
  local rule = plan.stages[tonumber(stage)]
  local vote = record.verdict or (to == 'completed' and 'approve' or to)
  chain[vote] = redis.call('HINCRBY', chain_key(chain.id), vote, 1)
  local open = redis.call('HINCRBY', chain_key(chain.id), 'open', -1)
  record_ended(chain, rule, record, to)
  local function votes(name) return tonumber(chain[name]) end
  local what = 'stage ' .. stage .. ' (' .. rule.name .. ') '

  if votes('approve') >= rule.quorum then
    redis.call('HINCRBY', chain_key(chain.id), 'passed', 1)
    go_on(chain, plan, keep_ms)
  elseif votes('approve') + open >= rule.quorum then
    return
  elseif votes('reject') > 0 then
    end_chain(chain, 'rejected', what .. 'rejects', keep_ms)
  elseif votes('revise') > 0 then
    go_back(chain, plan, keep_ms)
  elseif open > 0 then
    -- Only failures so far: the others are heard, so that a replay of the failed can succeed.
    return
  elseif votes('cancelled') > 0 then
    end_chain(chain, 'cancelled', what .. 'was cancelled', keep_ms)
  elseif plan.skip and not rule.person then
    go_on(chain, plan, keep_ms)
  elseif votes('dead') > 0 then
    end_chain(chain, 'dead', what .. 'failed', keep_ms)
  elseif votes('dropped') > 0 then
    end_chain(chain, 'dropped', what .. 'was dropped for a newer event', keep_ms)
  else
    end_chain(chain, 'expired', what .. 'was not done in time', keep_ms)
  end
  if open > 0 then dismiss(chain, rule, stage, round, keep_ms) end
  if chain.state ~= 'running' then report_chain(record, chain, plan.deliver, keep_ms) end
end

-- A turn's knowledge of its chain, and of each stage before it, in no order.
local function chain_prompt(record)
  local text = redis.call('HGET', chain_key(record.chain_id), 'plan')
  if not text then return {} end
  local plan = cjson.decode(text)
  local rule = plan.stages[tonumber(record.chain_stage)]
  local place = cjson.encode({name = plan.name, stage = tonumber(record.chain_stage),
    stages = #plan.stages, stage_name = rule.name, round = tonumber(record.round),
    silence = plan.silence, timeout_s = rule.timeout_s})
  return plus({place}, redis.call('HVALS', trail_key(record.chain_id)))
end

-- Let a replayed dead letter vote again; false when its chain went on, or ended otherwise.
local function rejoin(record)
  local key = chain_key(record.chain_id)
  local state, stage, round = unpack(redis.call('HMGET', key, 'state', 'stage', 'round'))
  if (state ~= 'dead' and state ~= 'running') or stage ~= record.chain_stage
    or round ~= record.round then
    return false
  end
  redis.call('HSET', key, 'state', 'running')
  redis.call('HDEL', key, 'reason', 'ended_ms')
  redis.call('HINCRBY', key, 'open', 1)
  redis.call('HINCRBY', key, 'dead', -1)
  redis.call('HDEL', trail_key(record.chain_id), record.id)
  redis.call('PERSIST', key)
  redis.call('PERSIST', trail_key(record.chain_id))
  return true
end

-- The receivers of a dispatch's end, and their confirmations. Put after `_lib.lua`, and before
-- `_chain.lua`, in the scripts that end dispatches, whose legend says `With`.
--
-- Keys     fleet:deliveries, fleet:receivers, fleet:delivery:, fleet:dispatch:, fleet:outcome:,
--          fleet:trail:, fleet:totals, fleet:bus, and those of `finish`
--
-- An answer waits in `announcing` until its receivers have ended. Any other end is reported beside it.
-- A record's `deliver` is a text of its receivers, as they were when it was accepted: name, the time
-- (ms) that there is to reach it, and the outcomes it receives, with commas between, or `*`.
-- A delivery's fields are `target|name`: state ('open', or how it was verified), deadline_ms, tries,
-- reason, token and until_ms (who sends it now, and for how long), tried_ms (when that began), last
-- (the newest report's token), placed (the dispatch that an agent got of it). Of all targets together:
-- `|open`, how many are; `|outcome`, `|stage`, `|why` and `|opened_ms`, the content of the report;
-- `|chain` for a chain's end.
-- Its name is the dispatch's id; of a generation before the newest, `id.generation`. Such a one has
-- `|attempt`, the attempt that the generation ended with.
-- `fleet:deliveries` has `name target` of all that are open, by deadline. Each receiver has a line of its
-- own, `fleet:deliveries:<target>`, by due time. `fleet:receivers` says of each receiver when its line is
-- to be looked at: too early perhaps, too late never.

-- The worker that committed publishes at once. Beat publishes when nothing came of it.
local FIRST_NOTIFY_MS = 2000
-- A delivery's deadline is a day at most: so much longer than retention says is an answer kept.
local ANSWER_GRACE_MS = 172800000

local function delivery_key(name) return 'fleet:delivery:' .. name end
local function line_key(target) return 'fleet:deliveries:' .. target end

-- Have the receiver's line looked at then, if not before. The upstream client looks at its own.
local function look_at(target, at_ms)
  if target ~= 'upstream' then redis.call('ZADD', 'fleet:receivers', 'LT', at_ms, target) end
end

-- Put a delivery into its receiver's line.
local function put_in_line(name, target, due_ms)
  redis.call('ZADD', line_key(target), due_ms, name .. ' ' .. target)
  look_at(target, due_ms)
end

local function leave_line(name, target)
  redis.call('ZREM', line_key(target), name .. ' ' .. target)
  redis.call('ZREM', 'fleet:deliveries', name .. ' ' .. target)
end

-- The record whose end a delivery reports; `told` is the delivery's name, and `earlier` set where the
-- end is that of a generation before the newest. `name` may have the newest generation as well.
local function record_of(name)
  local id, generation = string.match(name, '^([^.]+)%.?(%d*)$')
  local record = read_hash(dispatch_key(id))
  record.earlier = generation ~= '' and generation ~= record.generation
  record.told = record.earlier and name or id
  return record
end

-- The receivers in such a text that receive this outcome: {{name, ms}, ...}.
local function receivers_of(receivers, outcome)
  local found = {}
  for target, most_ms, on in string.gmatch(receivers or '', '(%S+) (%d+) (%S+)') do
    if on == '*' or string.find(',' .. on .. ',', ',' .. outcome .. ',', 1, true) then
      found[#found + 1] = {target, tonumber(most_ms)}
    end
  end
  return found
end

local function keep_longer(key)
  local left = redis.call('PTTL', key)
  if left > 0 then redis.call('PEXPIRE', key, left + ANSWER_GRACE_MS) end
end

local function open(record, targets, notify_ms, about)
  local key = delivery_key(record.id)
  redis.call('HSET', key, '|open', #targets, '|opened_ms', NOW, unpack(about))
  for _, one in ipairs(targets) do
    local target, most_ms = unpack(one)
    redis.call('HSET', key, target .. '|state', 'open', target .. '|tries', 0,
      target .. '|deadline_ms', string.format('%.0f', NOW + most_ms))
    redis.call('ZADD', 'fleet:deliveries', NOW + most_ms, record.id .. ' ' .. target)
    put_in_line(record.id, target, NOW + (target == 'upstream' and 0 or notify_ms))
  end
  keep_longer('fleet:outcome:' .. record.id)
end

-- One target has ended; with the last of them an announced dispatch is completed. `record` is one of
-- `record_of`.
local function end_target(record, target, verification, reason, keep_ms)
  local key = delivery_key(record.told)
  redis.call('HSET', key, target .. '|state', verification, target .. '|reason', reason)
  redis.call('HDEL', key, target .. '|token', target .. '|until_ms')
  leave_line(record.told, target)
  tally(record.agent, 'delivery.' .. verification)
  emit('delivery_verified', plus(who(record), {'name', target, 'verification', verification,
    'reason', reason}))
  -- A chain's end is not the end of the dispatch that it came with, nor is that of an earlier generation.
  if not record.earlier and redis.call('HEXISTS', key, '|chain') == 0 then
    if verification == 'timeout_fallback' or not record.verification then
      record.verification = verification
    end
    redis.call('HSET', dispatch_key(record.id), 'verification', record.verification)
  end
  if redis.call('HINCRBY', key, '|open', -1) > 0 then return end
  redis.call('PEXPIRE', key, keep_ms)
  if record.earlier then return end
  if record.state == 'announcing' then
    finish(record, 'completed', {}, {'elapsed_s', tonumber(record.elapsed_ms or 0) / 1000,
      'verification', record.verification}, keep_ms)
  end
  redis.call('PEXPIRE', 'fleet:outcome:' .. record.id, keep_ms)
end

-- A dispatch that an agent got as another's outcome has its own end: that is the agent's word.
local function confirm(record, to, why, keep_ms)
  if not record.confirms then return end
  local name, target = string.match(record.confirms, '(%S+) (%S+)')
  redis.call('HDEL', dispatch_key(record.id), 'confirms')
  local sender = record_of(name)
  local known = redis.call('HMGET', delivery_key(sender.told), target .. '|state', target .. '|placed')
  if not sender.id or known[1] ~= 'open' or known[2] ~= record.id then return end
  local what = record.agent .. ' had it as ' .. record.id
  if to ~= 'completed' then
    what = what .. ', which is ' .. to .. (why and why ~= '' and ' (' .. why .. ')' or '')
  end
  -- A runner that types into a terminal says itself whether it saw its text arrive.
  local verification = to == 'completed' and (record.injected or 'ack') or 'timeout_fallback'
  end_target(sender, target, verification, what, keep_ms)
end

-- Announce an answer that has receivers: the turn is over, agent and session are free, and the
-- dispatch waits for their confirmation. True when it has receivers.
announces = function(record, fields, keep_ms)
  if record.state == 'announcing' then return true end
  local targets = receivers_of(record.deliver, 'completed')
  if #targets == 0 then return false end
  leave_queue(record)
  leave_agent(record)
  move(record, 'announcing', plus({'announced_ms', NOW}, fields))
  if not record.joined_to then next_in_session(record) end
  open(record, targets, FIRST_NOTIFY_MS, {'|outcome', 'completed'})
  confirm(record, 'completed', nil, keep_ms)
  if record.joined and not record.joined_to then
    local shared = of_turn(record)
    for id in string.gmatch(record.joined, '%S+') do
      redis.call('COPY', 'fleet:outcome:' .. record.id, 'fleet:outcome:' .. id)
      announces(read_hash(dispatch_key(id)), shared, keep_ms)
    end
  end
  return true
end

local function value_of(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
  return nil
end

local function report_beside(record, targets, about, keep_ms)
  open(record, targets, 0, about)
  redis.call('PEXPIRE', delivery_key(record.id), keep_ms + RECORD_GRACE_MS)
end

-- Called by `finish` for an end that was not announced.
report = function(record, to, extra, keep_ms)
  local why = value_of(extra, 'reason')
  confirm(record, to, why, keep_ms)
  local targets = receivers_of(record.deliver, to)
  if #targets == 0 then return end
  report_beside(record, targets, {'|outcome', to, '|why', why or '',
    '|stage', value_of(extra, 'stage') or ''}, keep_ms)
end

-- Report a chain that has ended with this dispatch to the receivers in its plan.
local function report_chain(record, chain, receivers, keep_ms)
  -- A rejection is nobody's failure.
  local to = chain.state == 'rejected' and 'cancelled' or chain.state
  local targets = receivers_of(receivers, to)
  if #targets == 0 then return end
  report_beside(record, targets, {'|outcome', chain.state, '|why', chain.reason, '|chain', chain.name},
    keep_ms)
  keep_longer('fleet:trail:' .. chain.id)
end

-- How an attempt ends. Put after `_lib.lua`, `_history.lua`, `_announce.lua`, `_chain.lua`, `_spend.lua` and
-- `_failures.lua` in the scripts whose legend says `With`.
--
-- EndingArgs
--   verdict          'completed' | 'failed' | 'cancelled' | 'held'
--   fields           of the record (JSON object of strings)
--   answer           content
--   stage            of a failure, else ''
--   reason           of a failure or a cancellation, else ''
--   failure          the failure to keep with the attempt (JSON, content), else ''
--   retryable        '1' | '0'
--   attempts_max     attempts allowed
--   min_age_ms       age below which a dispatch does not die
--   backoff_ms       first wait before a retry
--   jitter           from 0 to 1
--   retry_after_ms   least wait before a retry
--   keep_dead_ms
--   keep_ended_ms
--   user_message     the event, as a message of the session's history, or ''
--   agent_message    the answer, as such a message
--   messages_max     most messages of a history
--   bytes_max        most bytes of them
--   history_keep_ms
-- Keys     those of `commit.lua`, of which here: fleet:outcome:, fleet:retry, fleet:deadlines

-- End the attempt that `record` is active with: the outcome, the bus entries and the removal from the
-- work lists, at once. `elapsed` (ms) is how long it ran, `ending` an `EndingArgs`. Answers as
-- `commit.lua`.
local function end_attempt(record, fence, elapsed, ending)
  local id, agent, attempt = record.id, record.agent, record.attempt
  local verdict, stage, reason = ending.verdict, ending.stage, ending.reason
  local keep_ended = ending.keep_ended_ms

  -- Upper bounds (ms) of the histogram of turns, from an echo to the longest hard limits;
  -- `fleet.ops.metrics` has the same.
  local bound = 'inf'
  for _, limit in ipairs({100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 120000, 300000,
    600000, 1800000}) do
    if elapsed <= limit then bound = limit break end
  end
  tally(agent, 'turn.' .. bound)
  tally(agent, 'turn_ms', elapsed)
  -- A later attempt's figures hold those of the journalled steps again, or, when it got less far, not
  -- yet: what a dispatch has cost never shrinks, and only what is more than before is counted.
  local function spend(name, value)
    local before, now = tonumber(record[name] or 0), tonumber(value)
    charge(agent, name, before, now)
    return now > before and value or record[name] or value
  end

  local set = {'committed', attempt .. '/' .. fence, 'elapsed_ms', elapsed}
  for name, value in pairs(cjson.decode(ending.fields)) do
    if per_unit[name] then value = spend(name, value) end
    set[#set + 1] = name; set[#set + 1] = tostring(value)
    if name == 'verdict' or name == 'injected' then record[name] = value end
    if name == 'tier' then
      redis.call('HSET', agent_key(agent), 'tier', value)
      tally(agent, 'tier.' .. value)
    end
  end
  if stage ~= '' then
    tally(agent, 'failed.' .. stage)
    plus(set, {'stage', stage, 'error', reason, 'retryable', ending.retryable})
  end
  local timing = {'elapsed_s', elapsed / 1000}
  local function done(state)
    notify_if_short(agent, false)
    return plus({'done', state}, unnotified)
  end

  if verdict == 'completed' then
    redis.call('SET', 'fleet:outcome:' .. id, ending.answer, 'PX', keep_ended)
    -- What earlier attempts failed of is on the bus; the dispatch has not failed.
    redis.call('HDEL', dispatch_key(id), 'stage', 'error', 'retryable', 'retry_at_ms')
    if record.session ~= '' and ending.user_message ~= '' then
      remember(record.session, ending.user_message, ending.agent_message,
        tonumber(ending.messages_max), tonumber(ending.bytes_max), ending.history_keep_ms)
    end
    if announces(record, set, keep_ended) then return done('announcing') end
    finish(record, 'completed', set, timing, keep_ended)
    return done('completed')
  end
  if verdict == 'cancelled' then
    finish(record, 'cancelled', plus(set, {'error', reason}), plus(timing, {'reason', reason}),
      keep_ended)
    return done('cancelled')
  end

  if verdict == 'held' and not record.cancel and NOW < tonumber(record.deadline_ms) then
    move(record, 'queued', set)
    redis.call('HINCRBY', dispatch_key(id), 'attempt_base', 1)
    redis.call('HSET', agent_key(agent), 'hold_ms', string.format('%.0f', NOW + tonumber(ending.retry_after_ms)),
      'hold_stage', stage, 'hold_reason', reason)
    leave_agent(record)
    redis.call('ZADD', 'fleet:deadlines', record.deadline_ms, id)
    offer(record, tonumber(record.order) - 2 ^ 50)
    emit('dispatch_queued', plus(who(record), {'stage', stage, 'reason', reason}))
    return {'done', 'queued'}
  end

  local failures = tonumber(attempt) - tonumber(record.losses) - tonumber(record.attempt_base or 0)
  -- Full jitter: a random part of a wait that doubles, an hour at most (AWS, "Exponential Backoff And
  -- Jitter"). Attempts that a dying worker or a drain cut short do not lengthen it.
  local ceiling = math.min(tonumber(ending.backoff_ms) * 2 ^ math.min(math.max(failures, 1) - 1, 20), 3600000)
  local wait = math.floor(math.max(ceiling * tonumber(ending.jitter), tonumber(ending.retry_after_ms)))
  local young = NOW - tonumber(record.accepted_ms) < tonumber(ending.min_age_ms)
  local in_time = NOW + wait < tonumber(record.deadline_ms)
  -- To wait until the budget can be read, or for as long as a model's provider asks, is no fault of the event's, and uses
  -- up none of its attempts.
  local waits = stage == 'budget' or stage == 'llm' and tonumber(ending.retry_after_ms) > 0
  local left = failures < tonumber(ending.attempts_max) or young or waits
  local retry = ending.retryable == '1' and in_time and left and not record.cancel
  local failed = plus(timing, {'stage', stage, 'reason', reason, 'will_retry', tostring(retry)})
  if retry then plus(failed, {'retry_at', string.format('%.3f', (NOW + wait) / 1000)}) end
  emit('dispatch_failed', plus(who(record), failed))
  keep_failure(record, ending.failure)
  if record.cancel then
    finish(record, 'cancelled', plus(set, {'error', record.cancel}), {'reason', record.cancel},
      keep_ended)
    return done('cancelled')
  end
  if not retry then
    finish(record, 'dead', set, {'stage', stage, 'reason', reason}, ending.keep_dead_ms)
    return done('dead')
  end
  leave_agent(record)
  if waits then redis.call('HINCRBY', dispatch_key(id), 'attempt_base', 1) end
  move(record, 'retrying', plus(set, {'retry_at_ms', string.format('%.0f', NOW + wait)}))
  next_in_session(record)
  redis.call('ZADD', 'fleet:retry', NOW + wait, id)
  redis.call('ZADD', 'fleet:deadlines', record.deadline_ms, id)
  return done('retrying')
end

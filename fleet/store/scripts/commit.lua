-- End an attempt: the outcome, the bus entries and the removal from the work lists, at once.
--
-- ARGV     1 dispatch id ('' means whatever the agent has active), 2 agent, 3 fence,
--          4 attempt ('' with an empty id), 5 verdict 'completed' | 'failed' | 'cancelled' | 'held',
--          6 record fields (JSON object of strings), 7 answer (content),
--          8 stage, 9 reason, 10 retryable '1'|'0', 11 attempts allowed, 12 minimum age (ms),
--          13 first wait before a retry (ms), 14 jitter, from 0 to 1, 15 never before (ms),
--          16 keep dead (ms), 17 keep ended (ms),
--          18 what was said, as a message of its session's history ('' for none), 19 what was
--          answered, 20 most messages kept, 21 most bytes of them, 22 keep a history (ms),
--          23 where an answer is delivered: names and times (ms), see `announce`, or ''
-- With     _history, _chain, _delivery
-- Keys     fleet:dispatch:, fleet:outcome:, fleet:agent:, fleet:due:, fleet:retry, fleet:deadlines,
--          fleet:session:, fleet:sessions, fleet:counts, fleet:totals, fleet:ended, fleet:dead,
--          fleet:event:, fleet:history:, fleet:spend:, fleet:deliveries, fleet:delivery:, fleet:bus
-- Returns  {'done', state, `id agent` to ring for, ...} | {'fenced'} | {'gone'}
-- Invariants
--   Only the attempt that runs now, under the newest token, ends a dispatch.
--   While the agent has work there is a doorbell: more are used up than rung when workers die.
--   A repeated call (its reply was lost) answers the same and writes nothing.
--   Totals count each turn once, and of what a turn has cost only what earlier attempts had not.
--   A held one has used up no attempt and is the agent's next; the agent claims none before its time.
--   A session's history is written with the outcome, once, or not at all.
--   Dead only when attempts and minimum age are used up, the error is permanent, or the deadline
--   passed.

local id, agent, fence, attempt, verdict = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local fields, answer, stage, reason = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local retryable, attempts_max, min_age = ARGV[10] == '1', tonumber(ARGV[11]), tonumber(ARGV[12])
local keep_dead, keep_ended = ARGV[16], ARGV[17]

if id == '' then
  id = redis.call('HGET', agent_key(agent), 'active') or ''
  attempt = redis.call('HGET', dispatch_key(id), 'attempt') or ''
end
local record = read_hash(dispatch_key(id))
if not record.id then return {'gone'} end
if record.committed == attempt .. '/' .. fence then return {'done', record.state} end
if record.state ~= 'active' or record.attempt ~= attempt or record.fence ~= fence
  or not newest(agent, fence) then
  return {'fenced'}
end

local elapsed = NOW - tonumber(record.started_ms)
-- Upper bounds (ms) of the histogram of turns, from an echo to the longest hard limits;
-- `fleet.metrics` has the same.
local bound = 'inf'
for _, limit in ipairs({100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 120000, 300000,
  600000, 1800000}) do
  if elapsed <= limit then bound = limit break end
end
tally(agent, 'turn.' .. bound)
tally(agent, 'turn_ms', elapsed)
-- A later attempt's figures hold those of the journalled steps again, or, when it got less far, not
-- yet: what a dispatch has cost never shrinks, and only what is more than before is counted.
local per_unit = {tokens_in = 1, tokens_out = 1, usd = 1e6}
local day = 'fleet:spend:' .. math.floor(NOW / 86400000)
local function spend(name, value)
  local before, now, unit = tonumber(record[name] or 0), tonumber(value), per_unit[name]
  if now <= before then return record[name] or value end
  tally(agent, name, math.floor(now * unit + 0.5) - math.floor(before * unit + 0.5))
  redis.call(name == 'usd' and 'HINCRBYFLOAT' or 'HINCRBY', day, agent .. '|' .. name, now - before)
  redis.call('PEXPIRE', day, 259200000)
  return value
end

local set = {'committed', attempt .. '/' .. fence, 'elapsed_ms', elapsed}
for name, value in pairs(cjson.decode(fields)) do
  if per_unit[name] then value = spend(name, value) end
  set[#set + 1] = name; set[#set + 1] = tostring(value)
  if name == 'verdict' then record.verdict = value end
  if name == 'tier' then
    redis.call('HSET', agent_key(agent), 'tier', value)
    tally(agent, 'tier.' .. value)
  end
end
if stage ~= '' then
  tally(agent, 'failed.' .. stage)
  plus(set, {'stage', stage, 'error', reason, 'retryable', ARGV[10]})
end
local timing = {'elapsed_s', elapsed / 1000}
local function done(state)
  ring_if_short(agent, false)
  return plus({'done', state}, unrung)
end

if verdict == 'completed' then
  local announces = ARGV[23] ~= '' and not record.chain_id
  -- Longer where it waits for a receiver, whose longest deadline is a day.
  redis.call('SET', 'fleet:outcome:' .. id, answer, 'PX',
    string.format('%.0f', tonumber(keep_ended) + (announces and 172800000 or 0)))
  if record.session ~= '' and ARGV[18] ~= '' then
    remember(record.session, ARGV[18], ARGV[19], tonumber(ARGV[20]), tonumber(ARGV[21]), ARGV[22])
  end
  if announces then
    announce(record, set, ARGV[23])
    return done('announcing')
  end
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
  redis.call('HSET', agent_key(agent), 'hold_ms', string.format('%.0f', NOW + tonumber(ARGV[15])))
  redis.call('HDEL', agent_key(agent), 'active')
  redis.call('ZADD', 'fleet:deadlines', record.deadline_ms, id)
  offer(record, tonumber(record.order) - 2 ^ 50)
  emit('dispatch_queued', plus(who(record), {'stage', stage, 'reason', reason}))
  return {'done', 'queued'}
end

local failures = tonumber(attempt) - tonumber(record.losses) - tonumber(record.attempt_base or 0)
-- Full jitter: a random part of a wait that doubles, an hour at most (AWS, "Exponential Backoff And
-- Jitter"). Attempts that a dying worker or a drain cut short do not lengthen it.
local ceiling = math.min(tonumber(ARGV[13]) * 2 ^ math.min(math.max(failures, 1) - 1, 20), 3600000)
local wait = math.floor(math.max(ceiling * tonumber(ARGV[14]), tonumber(ARGV[15])))
local young = NOW - tonumber(record.accepted_ms) < min_age
local in_time = NOW + wait < tonumber(record.deadline_ms)
local retry = retryable and in_time and (failures < attempts_max or young) and not record.cancel
local failed = plus(timing, {'stage', stage, 'reason', reason, 'will_retry', tostring(retry)})
if retry then plus(failed, {'retry_at', string.format('%.3f', (NOW + wait) / 1000)}) end
emit('dispatch_failed', plus(who(record), failed))
if record.cancel then
  finish(record, 'cancelled', plus(set, {'error', record.cancel}), {'reason', record.cancel},
    keep_ended)
  return done('cancelled')
end
if not retry then
  finish(record, 'dead', set, {'stage', stage, 'reason', reason}, keep_dead)
  return done('dead')
end
redis.call('HDEL', agent_key(agent), 'active')
move(record, 'retrying', plus(set, {'retry_at_ms', string.format('%.0f', NOW + wait)}))
next_in_session(record)
redis.call('ZADD', 'fleet:retry', NOW + wait, id)
redis.call('ZADD', 'fleet:deadlines', record.deadline_ms, id)
return done('retrying')

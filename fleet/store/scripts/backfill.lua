-- Accept an event that was kept while this store was away, with what became of its dispatches until now.
--
-- ARGV
--   reports   the runs of its dispatches (JSON): a list of objects with id, run (the same in every report of
--             that run, and of no other run), attempt, losses, holder, started_ago (ms), elapsed (ms), steps
--             (journal key -> entry), costs (of each step: tokens in, tokens out, dollars), verified (how its
--             deliveries were verified, and why) and, where the run ended, ending: EndingArgs by name
--   event...  EventArgs, see `_accept.lua`
-- With     _busy, _caps, _history, _announce, _chain, _spend, _accept, _accept_more, _failures, _ending
-- Keys     those of `accept.lua` and `commit.lua`, of which here: fleet:deadlines; and fleet:journal:
-- Returns  {what `accept.lua` answers for it, how many of the reports came too late,
--          `id agent` to publish for, ...}
-- Invariants
--   In one step: nobody claims a dispatch between its acceptance and its outcome.
--   A report changes only a dispatch that has begun nowhere else; of one that has, also in another run
--   from a spool, it is counted as too late. A repeated call (its reply was lost) answers the same of
--   the event, counts none as too late, and writes nothing.
--   With a conflict nothing is written.
--   The bus has what happened in its order, and each outcome once.

local TOKEN = 'spool'

local function begun(record, report)
  for _, costs in ipairs(report.costs) do pay(record.id, record.agent, costs) end
  for _, name in ipairs({'tokens_in', 'tokens_out', 'usd'}) do
    record[name] = redis.call('HGET', dispatch_key(record.id), name) or nil
  end
  redis.call('ZREM', due_key(record.agent), record.id)
  redis.call('ZREM', 'fleet:deadlines', record.id)
  for key, entry in pairs(report.steps) do
    redis.call('HSET', 'fleet:journal:' .. record.id, key, entry)
  end
  record.attempt, record.losses = tostring(report.attempt), tostring(report.losses)
  record.started_ms = string.format('%.0f', NOW - report.started_ago)
  -- Of those that were cut short none is used up.
  record.attempt_base = math.max(0, report.attempt - report.losses - (report.ending and 1 or 0))
  move(record, 'active', {'attempt', report.attempt, 'losses', report.losses, 'fence', TOKEN,
    'attempt_base', record.attempt_base, 'started_ms', record.started_ms, 'holder', report.holder,
    'run', report.run})
  tally(record.agent, 'attempts', report.attempt)
  emit('dispatch_started', who(record))
  for i = 1, #report.verified, 2 do
    record_injected(record, report.verified[i], report.verified[i + 1])
  end
end

-- Queue a dispatch whose turn was cut short: it goes on from its journal, before any other.
local function requeue(record, report)
  move(record, 'queued', {})
  redis.call('ZADD', 'fleet:deadlines', record.deadline_ms, record.id)
  offer(record, tonumber(record.order) - 2 ^ 50)
  emit('dispatch_queued', plus(who(record), {'reason', 'its turn was cut short and goes on'}))
end

local answer = accept(read_event(ARG.event))
local late, made = 0, {}
-- The dispatches of that id are another event's.
if answer[1] == 'conflict' then return {answer, 0} end
for _, report in ipairs(cjson.decode(ARG.reports)) do
  local record = read_hash(dispatch_key(report.id))
  if record.state ~= 'queued' or record.attempt ~= '0' then
    if record.run ~= report.run then late = late + 1 end
  else
    begun(record, report)
    if report.ending then
      plus(made, {unpack(end_attempt(record, TOKEN, report.elapsed, report.ending), 3)})
    else
      requeue(record, report)
    end
  end
end
return plus({answer, late}, made)

-- Journal one finished step of a running turn, so that a later attempt need not repeat it, and count
-- what it has cost.
--
-- ARGV
--   dispatch_id
--   fence
--   lease
--   attempt
--   step          the step's key in the journal
--   entry         JSON
--   tokens_in     what the step has cost
--   tokens_out
--   usd
--   verification  how the delivery by this step was verified: 'echo' | 'timeout_fallback',
--                 or '' where the step delivered nothing
--   reason        of that verification
-- With     _holder, _spend
-- Keys     fleet:dispatch:, fleet:journal:, fleet:fences, fleet:agent:, fleet:totals, fleet:spend:, fleet:bus
-- Returns  {'kept', why to cancel or ''} | {'fenced', ''}
-- Invariants
--   Only the attempt that runs now writes. Writing the same step again changes nothing.
--   What was paid counts at once, whatever becomes of the turn.
--   A verification is reported and counted once for each entry that is written.

local id, step, entry = ARG.dispatch_id, ARG.step, ARG.entry
local agent, cancel = current(ARG.dispatch_id, ARG.fence, ARG.lease, ARG.attempt)
if not agent then return {'fenced', ''} end
if entry == '' or redis.call('HGET', 'fleet:journal:' .. id, step) == entry then
  return {'kept', cancel or ''}
end
redis.call('HSET', 'fleet:journal:' .. id, step, entry)
pay(id, agent, {ARG.tokens_in, ARG.tokens_out, ARG.usd})
if ARG.verification ~= '' then
  record_injected(read_hash(dispatch_key(id)), ARG.verification, ARG.reason)
end
return {'kept', cancel or ''}

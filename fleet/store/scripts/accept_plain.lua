-- Accept events that need nothing of `_accept_more.lua`: no chain, no room made, no session that must not be
-- busy. What most events are; each costs a third less than by `accept.lua`.
--
-- ARGV
--   events...  EventArgs, see `_accept.lua`
-- With     _caps, _chain, _accept
-- Keys     fleet:event:, fleet:payload:, fleet:dispatch:, fleet:due:, fleet:index, fleet:ids,
--          fleet:event_ids, fleet:deadlines, fleet:counts, fleet:seq, fleet:session:, fleet:sessions,
--          fleet:memory, fleet:lost, fleet:sender:, fleet:bus, agent.<agent>
-- Returns  as `accept.lua`
-- Invariants
--   Those of `accept.lua`. The caller sees to it that each event is plain.

local answers, at, events = {}, ARG.events + 1, tonumber(ARGV[ARG.events])
for i = 1, events do
  local event, dispatches
  event, dispatches, at = read_event(at)
  if not counted_waiting and (events > 1 or #dispatches > 1) then
    gather()
    counted_waiting = redis.call('ZCARD', 'fleet:deadlines')
  end
  answers[i] = accept(event, dispatches)
  if counted_waiting and answers[i][1] == 'accepted' then
    counted_waiting = counted_waiting + #dispatches
  end
end
write_out()
return answers

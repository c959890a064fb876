-- Accept events, each by itself and at once: its payload, one record per dispatch, the wake-ups and
-- the bus entries.
--
-- ARGV
--   events...  EventArgs, see `_accept.lua`
-- With     _busy, _caps, _announce, _chain, _accept, _accept_more
-- Keys     fleet:event:, fleet:payload:, fleet:dispatch:, fleet:due:, fleet:index, fleet:ids,
--          fleet:event_ids, fleet:deadlines, fleet:counts, fleet:seq, fleet:session:, fleet:sessions, fleet:quiet, fleet:orders:,
--          fleet:ended, fleet:memory, fleet:lost, fleet:sender:, fleet:chain:, fleet:trail:, fleet:bus, agent.<agent>
-- Returns  for each event {'accepted'|'duplicate'|'old', chain or '', id, agent, id, agent, ...},
--          where 'old' is a duplicate of what an earlier version accepted; or {'conflict'},
--          {'full', agent, pending}, {'busy', agent}, {'crowded', waiting},
--          {'sender', wait (ms)}, {'memory'} or {'lost', why}
-- Invariants
--   The same digest is accepted once: a second call answers the first one's ids and writes nothing.
--   The same digest with other content is refused. Content that is not known counts as the same.
--   All or nothing: a full agent, or a busy session, refuses the whole event, and no other of the same call.
--   Accepted means due: each record is in its agent's due list before this returns, or in the line of
--   its session; or, where events are coalesced, in `fleet:quiet` or part of one that is.

local answers, at = {}, ARG.events + 1
for i = 1, tonumber(ARGV[ARG.events]) do
  local event, dispatches
  event, dispatches, at = read_event(at)
  answers[i] = accept(event, dispatches)
end
return answers

-- Accept events, each by itself and at once: its payload, one record per dispatch, the doorbells and
-- the bus entries.
--
-- ARGV     for each event: digest, event id, source, sender or '', digest of its content or '',
--          digest that a version before senders gave it or '', session or '', priority,
--          payload (JSON), the route in words, how long to keep the members that are cancelled when
--          one dies (ms), or '' where none is, plan of a chain (JSON) or '', most dispatches that may wait in the
--          fleet, most events a minute of one source or '', number of dispatches,
--          then for each of these: id, agent, deadline (ms from now), max_pending, how long to keep
--          the one that is dropped when it is reached (ms) or '' where the new one is refused, and
--          what to do when its session is busy: '' | 'reject' | 'interrupt <keep ended, ms>' |
--          'coalesce <quiet window, ms> <longest wait, ms>', and who is told of its outcome, as
--          `_announce.lua` has it, or ''. With a plan they are its first stage's, and named only to
--          see whether there is room.
-- With     _busy, _caps, _announce, _chain, _accept
-- Keys     fleet:event:, fleet:payload:, fleet:dispatch:, fleet:due:, fleet:index, fleet:deadlines,
--          fleet:counts, fleet:seq, fleet:session:, fleet:sessions, fleet:quiet, fleet:orders:,
--          fleet:ended, fleet:pressure, fleet:sender:, fleet:chain:, fleet:trail:, fleet:bus, agent.<agent>
-- Returns  for each event {'accepted'|'duplicate'|'old', chain or '', id, agent, id, agent, ...},
--          where 'old' is a duplicate of what an earlier version accepted; or {'conflict'},
--          {'full', agent, pending}, {'busy', agent}, {'crowded', waiting},
--          {'sender', wait (ms)} or {'memory'}
-- Invariants
--   The same digest is accepted once: a second call answers the first one's ids and writes nothing.
--   The same digest with other content is refused. Content that is not known counts as the same.
--   All or nothing: a full agent, or a busy session, refuses the whole event, and no other of the same call.
--   Accepted means due: each record is in its agent's due list before this returns, or in the line of
--   its session; or, where events are coalesced, in `fleet:quiet` or part of one that is.

local answers, at = {}, 1
while at < #ARGV do
  local last = last_of(at)
  answers[#answers + 1] = accept(at, last)
  at = last + 1
end
return answers

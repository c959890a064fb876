"""Intake without a broker: events are kept on disk, and handed to the ledger when it is back.

The problem: while the store is away nothing can be written to the ledger, and senders that are told
so must keep their events themselves. Most cannot. And a write that timed out may have landed: kept
and handed over later, the event must not run twice.

    sender -> intake -> breaker closed, spool empty -> ledger -> 202
                     `-> else: spool.db, synced ----------------> 202
    keeper:  breaker closed, spool not empty -> ledger, in order -> out of the spool

What makes it exact:

- An event is told by its digest (source and id), in the spool and in the ledger alike, and the ids
  of its dispatches follow from it. So the sender is answered with the ids that the ledger will use.
- Nothing runs from the spool. Only the ledger hands out work, to the holder of the agent's lease.
  So whether a write that timed out has landed need not be known: handing the event over again
  answers `duplicate`, and it has run or will run once. The same holds for one that was handed over
  just when the keeper was killed, and for a duplicate sent meanwhile through another door.
- An event leaves the spool after the ledger has it, never before.
- The order is kept: while the spool holds anything, every event that comes through this machine's
  API or `fleet send` goes through it, also when the broker is back already. The last step out of
  that, "the spool is empty", happens under the lock under which events go in.
- Accepted is accepted: `max_pending` is checked when an event goes into the spool, against what is
  in there, and not again when it comes out. Its deadline counts from its acceptance. What only the
  store can judge is not judged: `caps`, and whether a session is busy.
- It is bounded, in events and in bytes, and refuses what goes beyond with 503. What it refuses, for
  a bound or for a full disk, is said to the sender, in the log, and on the bus when that is back.

One process of all that share a data folder is the keeper: the API that holds the spool's lock.
`fleet send` spools only where a keeper lives, so that nothing waits for somebody who may never
come. The spool holds content, as the ledger's payloads do; its files are closed to other users.

Why nothing is dispatched from the spool while the broker is away: one turn at a time rests on the
lease, and the lease is in the store. A worker that lost the store may be in the middle of a turn
until its lease runs out, and an event that came before the outage, sent again during it, looks new
to a spool that cannot ask the ledger.
"""

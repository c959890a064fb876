"""Intake without a broker: events are kept on disk, and handed to the ledger when it is back.

The problem: while the store is away nothing can be written to the ledger, and senders that are told
so must keep their events themselves. Most cannot. And a write that timed out may have landed: kept
and handed over later, the event must not run twice.

    sender -> intake -> breaker closed, spool empty -> ledger -> 202
                     `-> else: spool.db, synced ----------------> 202
    keeper:  breaker closed, spool not empty -> ledger, in order -> out of the spool
             breaker open, for longer than a lease -> tasks.execution.offline: claim, turn, commit,
             in spool.db

What makes keeping exact:

- An event is told by its digest (source, id and sender), in the spool and in the ledger alike, and
  the ids of its dispatches follow from it. So the sender is answered with the ids that the ledger
  will use.
- Handing an event over again answers `duplicate`, and it has run or will run once. So whether a
  write that timed out has landed need not be known, nor whether the keeper was killed just then.
- An event leaves the spool after the ledger has it, never before.
- The order is kept: while the spool holds anything, every event that comes through this machine's
  API or `fleet send` goes through it, also when the broker is back already. The last step out of
  that, "the spool is empty", happens under the lock under which events go in.
- Accepted is accepted: `max_pending` is checked when an event goes into the spool, against what is
  in there, and not again when it comes out. Its deadline counts from its acceptance. What only the
  store can judge is not judged: `caps`, and whether a session is busy.
- It is bounded, in events and in bytes, and refuses what goes beyond with 503. What it refuses, for
  a bound or for a full disk, is said to the sender, in the log, and on the bus when that is back.
- A damaged file is set aside while nobody writes to it (`file.py`), and an event that the ledger
  cannot take, or has with other content, is put aside; both are told.

What makes running exact, where it is allowed (`runs.py` is the ledger of that time):

- One turn at a time rests on the lease, which is in the store. Here it rests on a lock of this
  machine (`fleet.system.agent_lock`), which workers hold beside their lease. So it is for fleets
  of one machine: another one's workers may still reach the store.
- Only what the ledger cannot have runs here (`offered.py`): an event that was ever offered to it
  from this machine is kept for it, also a repeated one. The keeper's hand-over is such an offer,
  and what was kept here once counts too. While the spool holds anything, nobody of this machine
  offers the ledger an event past it (`door.py`).
- How a dispatch ended is handed over with its event in one step (`scripts/backfill.lua`), when no
  turn runs here any more. A turn that was cut short goes on from its journal, by a worker.

One process of all that share a data folder is the keeper: the API that holds the spool's lock.
`fleet send` spools only where a keeper lives, so that nothing waits for somebody who may never
come. The spool holds content, as the ledger's payloads do; its files are closed to other users.
"""

"""The states of a dispatch, and the moves between them.

                  .---------- retrying <---------.
                  v                              |
   accept -> queued -> active -> announcing -> completed
               ^  |       |           `------> dead (replay: queued, a new generation)
                  |       '------------------> dead, cancelled
                  '--------------------------> cancelled, expired, dropped

   a person's stage of a chain: parked -> completed (approved), cancelled (rejected), expired

Who moves: `accept.lua` creates; `claim.lua` queued -> active, and active -> active when a worker
died; `commit.lua` active -> completed, retrying, dead, cancelled, and announcing where the outcome
is delivered, with it those whose turn it was too; `deliver_end.lua` announcing -> completed when
every receiver has ended, like `deliver_claim.lua` and `deliver_due.lua` when the last one's time is
over, and whichever script ends the turn of an agent that received the outcome; `reclaim.lua`
retrying -> queued and waiting ones -> expired; `cancel.lua` waiting ones -> cancelled; `replay.lua`
dead and retrying -> queued; `release.lua` active -> queued, when a stopping worker releases a turn;
`decide.lua` parked -> completed and cancelled; `reclaim.lua` active -> dead, when the worker died
of an agent that is not configured any more. Whichever script ends a stage of a chain makes the next
one (`_chain.lua`).
"""

from enum import StrEnum


class State(StrEnum):
    """A dispatch is in exactly one of these."""

    QUEUED = "queued"
    ACTIVE = "active"
    ANNOUNCING = "announcing"
    RETRYING = "retrying"
    PARKED = "parked"
    COMPLETED = "completed"
    DEAD = "dead"
    CANCELLED = "cancelled"
    DROPPED = "dropped"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """True when no further move but a replay can follow."""
        return self in TERMINAL


TERMINAL = frozenset({State.COMPLETED, State.DEAD, State.CANCELLED, State.DROPPED, State.EXPIRED})
WAITING = frozenset({State.QUEUED, State.RETRYING, State.PARKED})


class FailureStage(StrEnum):
    """The stage in which an attempt failed."""

    ADMISSION = "admission"
    QUEUE = "queue"
    LOCK = "lock"
    LLM = "llm"
    TOOL = "tool"
    TIMEOUT = "timeout"
    WORKER_LOST = "worker_lost"
    BUDGET = "budget"
    EXPIRED = "expired"

"""What stands between the senders and a broker that may be away: the breaker and the spool."""

from dataclasses import dataclass
from typing import Any

from fleet.broker.breaker import Breaker
from fleet.config.settings import Settings
from fleet.intake.spool.runs import SpoolLedger, alone, may_run_here
from fleet.intake.spool.submission_log import SubmissionLog
from fleet.intake.spool.table import Spool, SpoolFull
from fleet.store import keys
from routing import Event, Plan


@dataclass(frozen=True, slots=True)
class SpoolComponents:
    """All of one data folder; `offered` is None where nothing may run from the spool."""

    breaker: Breaker
    spool: Spool
    runs: SpoolLedger  #: also where nothing may: what has run before is to be handed over
    submissions: SubmissionLog | None = None

    @classmethod
    def of(cls, settings: Settings) -> "SpoolComponents":
        """As configured; nothing is opened yet."""
        breaker = Breaker(settings.data_dir, settings.breaker)

        def pending_max(agent: str) -> int:
            return settings.agents[agent].max_pending

        offered = (
            SubmissionLog(settings.data_dir.absolute() / "spool") if settings.runs_offline else None
        )

        def may_run(event: Event, plan: Plan) -> bool:
            if offered is None or not alone(event, plan):
                return False
            known = all(may_run_here(settings.agents.get(agent)) for agent in plan.agents)
            return known and not offered.has(keys.event_digest(event.key))

        spool = Spool(
            settings.data_dir, settings.spool, pending_max, settings.routing_chains(), may_run
        )
        runs = SpoolLedger(spool.file, settings, lambda: breaker.closed)
        return cls(breaker, spool, runs, offered)

    def status(self) -> dict[str, Any]:
        """Its part of the health document; `spooled` is None where the spool cannot be read."""
        try:
            spooled: int | None = self.spool.size().events
            direct = self.runs.counts() if self.submissions else {}
        except SpoolFull:
            spooled, direct = None, {}
        return {
            "breaker": self.breaker.name,
            "spooled": spooled,
            **({"direct": direct} if direct else {}),
        }

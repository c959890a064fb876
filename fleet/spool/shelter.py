"""What stands between the senders and a broker that may be away: the breaker and the spool."""

from dataclasses import dataclass
from typing import Any

from fleet.broker.breaker import Breaker
from fleet.broker.circuit import Limits
from fleet.settings import Settings
from fleet.spool.table import Spool, SpoolFull


@dataclass(frozen=True, slots=True)
class Shelter:
    """Both, of one data folder."""

    breaker: Breaker
    spool: Spool

    @classmethod
    def of(cls, settings: Settings) -> "Shelter":
        """As configured; nothing is opened yet."""
        limits = Limits(
            failures=settings.breaker.failure_threshold, wait_s=settings.breaker.reset_timeout_s
        )

        def pending_max(agent: str) -> int:
            return settings.agents[agent].max_pending

        return cls(
            Breaker(settings.data_dir, limits),
            Spool(settings.data_dir, settings.spool, pending_max, settings.governance()),
        )

    def standing(self) -> dict[str, Any]:
        """Its part of the health document; `spooled` is None where the spool cannot be read."""
        try:
            spooled: int | None = self.spool.size().events
        except SpoolFull:
            spooled = None
        return {"breaker": self.breaker.name, "spooled": spooled}

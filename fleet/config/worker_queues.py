"""The queues of wake-ups, and who serves them: a worker for each agent, or one for a pool."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleet.config.agents import AgentConfig
    from fleet.config.pools import PoolConfig


class WorkerQueues:
    """The part of `Settings` that tells which worker runs an agent's turns."""

    if TYPE_CHECKING:
        agents: dict[str, AgentConfig]
        pools: dict[str, PoolConfig]
        offers: tuple[str, ...]

    def pooled(self, pool: str) -> tuple[str, ...]:
        """The agents of one pool."""
        return tuple(name for name, agent in self.agents.items() if agent.pool == pool)

    @property
    def workers(self) -> tuple[str, ...]:
        """The queues that have a worker on each host: `agent.NAME` and `pool.NAME`."""
        return self.workers_of(self.agents)

    @property
    def workers_here(self) -> tuple[str, ...]:
        """Those of the queues whose workers this host may run."""
        return tuple(queue for queue in self.workers if self.runs_here(queue))

    def runs_here(self, queue: str) -> bool:
        """True unless a pool needs what this host does not offer."""
        kind, _, name = queue.partition(".")
        return kind != "pool" or set(self.pools[name].needs) <= set(self.offers)

    def workers_of(self, agents: Iterable[str]) -> tuple[str, ...]:
        """The queues of those workers that some agents need."""
        return tuple(dict.fromkeys(self.queue(name) for name in agents if name in self.agents))

    def served(self, queue: str) -> tuple[str, ...]:
        """The agents whose wake-ups are in a queue."""
        kind, _, name = queue.partition(".")
        return self.pooled(name) if kind == "pool" else (name,)

    def processes(self, queue: str) -> int:
        """How many children the worker of a queue has."""
        kind, _, name = queue.partition(".")
        return self.pools[name].processes if kind == "pool" else 1

    def queue(self, agent: str) -> str:
        """The queue of an agent's wake-ups: its own, or its pool's."""
        pool = self.agents[agent].pool if agent in self.agents else None
        return f"agent.{agent}" if pool is None else f"pool.{pool}"

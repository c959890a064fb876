"""`[pools.NAME]` of `fleet.toml`: workers that run the turns of many agents."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from fleet.config.fields import ConfigTable, Names, number


class PoolConfig(ConfigTable):
    """A worker with several processes, each of which takes the next turn of any of its agents."""

    processes: Annotated[int, BeforeValidator(number), Field(ge=1, le=1000)] = Field(
        default=4, description="Processes of the pool on each host: as many turns at once."
    )
    needs: Names = Field(
        default=(),
        description="Kinds of hosts that run it: those whose `fleet.offers` has all of these.",
    )
    max_share: Annotated[float, BeforeValidator(number), Field(gt=0, le=1)] = Field(
        default=1.0, description="Most of the pool's processes for one agent; it always has one."
    )

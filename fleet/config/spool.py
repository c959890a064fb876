"""`[spool]` of `fleet.toml`: where events are kept while the broker is away."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from fleet.config.sections import ConfigTable, number


class SpoolConfig(ConfigTable):
    """How much is kept, and whether it runs there."""

    #: 0: nothing is kept, and senders are told that nothing can be accepted.
    max_events: Annotated[int, BeforeValidator(number), Field(ge=0, le=10_000_000)] = 10_000
    max_bytes: Annotated[int, BeforeValidator(number), Field(ge=1, le=2**40)] = 64 * 2**20
    #: Run what is kept while the broker is away. Absent: where the broker is the embedded one,
    #: which no other machine reaches; elsewhere true says that no other machine runs these agents.
    direct: bool | None = None

"""`[spool]` of `fleet.toml`: where events are kept while the broker is away."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from fleet.config.fields import ConfigTable, number


class SpoolConfig(ConfigTable):
    """The size of the spool, and offline execution."""

    max_events: Annotated[int, BeforeValidator(number), Field(ge=0, le=10_000_000)] = Field(
        default=10_000,
        description="Most events kept in `data_dir` while the broker is away; with 0, senders get "
        "503.",
    )
    max_bytes: Annotated[int, BeforeValidator(number), Field(ge=1, le=2**40)] = Field(
        default=64 * 2**20, description="Most bytes of these events."
    )
    #: No other machine reaches the embedded broker, so none can run the same agents then.
    direct: bool | None = Field(
        default=None,
        description="Offline execution: with your own broker, `true` promises that only this "
        "machine runs these agents; without it, on for the embedded broker only.",
    )

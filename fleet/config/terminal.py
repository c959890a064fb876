"""The table `terminal` of an agent with the runner `pty`."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from fleet.config.fields import ConfigTable, number

_Wait = Annotated[float, BeforeValidator(number), Field(gt=0, le=3600)]


class TerminalConfig(ConfigTable):
    """How to tell what an interactive program is doing."""

    #: Found in the line with the cursor, up to the cursor, or in the last line that is not blank.
    ready: str | None = Field(
        default=None,
        description="Regular expression of what the program shows while it waits for input; "
        "without it, silence decides.",
    )
    quiet_s: _Wait = Field(
        default=3.0,
        description="Silence after which a program without `ready` is taken to wait for input.",
    )
    echo_s: _Wait = Field(
        default=5.0,
        description="How long the echo of typed text is awaited; then the event is unverified.",
    )
    start_s: _Wait = Field(
        default=30.0,
        description="Most time until the program waits for input, at its start and before each "
        "event.",
    )

    @field_validator("ready")
    @classmethod
    def _is_pattern(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from None
        if pattern.search(""):
            raise ValueError("matches an empty line, so a busy program would seem ready")
        return value

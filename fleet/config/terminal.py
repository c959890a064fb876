"""The table `terminal` of an agent with the runner `pty`."""

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from fleet.config.fields import number

_Wait = Annotated[float, BeforeValidator(number), Field(gt=0, le=3600)]


class TerminalConfig(BaseModel):
    """How to tell what an interactive program is doing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: A regular expression for what it shows while it waits for input, found in the line with the
    #: cursor, up to it, or in the last line that is not blank; absent: it waits when it is quiet.
    ready: str | None = None
    #: Silence that ends a start and an answer where `ready` does not say.
    quiet_s: _Wait = 3.0
    #: So long is what was typed awaited in its output; then the event is unverified. System 003's.
    echo_s: _Wait = 5.0
    #: It must wait for input within this time, after its start and before each event.
    start_s: _Wait = 30.0

    @field_validator("ready")
    @classmethod
    def _is_pattern(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        if pattern.search(""):
            raise ValueError("matches an empty line, so a busy program would seem ready")
        return value

"""The numbers that `fleet.toml` holds."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def number(value: Any) -> Any:
    """A bool is an int to Python; in a configuration file it is a mistake."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


Seconds = Annotated[float, BeforeValidator(number), Field(gt=0, le=10 * 365 * 86400)]
Priority = Annotated[int, BeforeValidator(number), Field(ge=0, le=9)]
Count = Annotated[int, BeforeValidator(number), Field(ge=1, le=10_000_000)]

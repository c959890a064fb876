"""The kinds of values that `fleet.toml` holds, and the base of its tables."""

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def number(value: Any) -> Any:
    """Refuse a bool, which is an int to Python and a mistake in a configuration file."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def one_or_more(value: Any) -> Any:
    """Take a single string for a list of it."""
    if not isinstance(value, str | list | tuple):
        raise ValueError("must be a string or a list of strings")
    return (value,) if isinstance(value, str) else value


def array(value: Any) -> Any:
    """Refuse anything that is not TOML's array of tables."""
    if not isinstance(value, list | tuple):
        raise ValueError("must be an array of tables, written [[routes.rules]]")
    return value


def is_url(text: str) -> bool:
    """True for an address that HTTP can be spoken to."""
    place = urlsplit(text)
    return place.scheme in ("http", "https") and bool(place.hostname)


Seconds = Annotated[float, BeforeValidator(number), Field(gt=0, le=10 * 365 * 86400)]
Priority = Annotated[int, BeforeValidator(number), Field(ge=0, le=9)]
Count = Annotated[int, BeforeValidator(number), Field(ge=1, le=10_000_000)]
Port = Annotated[int, BeforeValidator(number), Field(ge=0, le=65535)]
Names = Annotated[tuple[str, ...], BeforeValidator(one_or_more)]


class ConfigTable(BaseModel):
    """A table of the file: frozen, closed to unknown keys, each key with its description."""

    model_config = ConfigDict(extra="forbid", frozen=True)

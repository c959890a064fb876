"""`[tools.NAME]` of `fleet.toml`: one set of tools."""

import string
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from fleet.config.fields import ConfigTable, Seconds, number

#: Of a header's name, after RFC 9110.
_TOKEN = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")


class ToolsConfig(ConfigTable):
    """Python functions, or a server of the Model Context Protocol: a program or an address."""

    python: str | None = Field(
        default=None,
        description="`package.module:tools`: a list of functions, or an instance with public "
        "methods.",
    )
    command: tuple[str, ...] = Field(
        default=(),
        description="An MCP server on standard input and output: program and arguments; no shell "
        "reads them.",
    )
    #: The environment holds no secret of the worker's.
    env: dict[str, SecretStr] = Field(
        default={},
        description="Added to the environment of `command`; a value `$NAME` is the worker's own "
        "variable.",
    )
    cwd: str | None = Field(
        default=None,
        description="The folder that `command` runs in; without it, the folder of the fleet.",
    )
    log_stderr: bool = Field(
        default=False,
        description="Write the standard error of `command`, which may quote prompts, to the "
        "worker's log.",
    )
    url: str | None = Field(
        default=None, description="The address of an MCP server that speaks Streamable HTTP."
    )
    headers: dict[str, SecretStr] = Field(
        default={}, description="Headers added to each request to `url`."
    )
    #: Reads run beside each other, writes alone.
    classes: dict[str, Literal["read", "write"]] = Field(
        default={},
        description="Class of each tool; otherwise `read_`, `get_` and `list_` read, and the rest "
        "writes.",
    )
    timeout_s: Seconds = Field(
        default=30.0, description="The limit of one call; then the model gets a time-out."
    )
    max_result_bytes: Annotated[int, BeforeValidator(number), Field(ge=256, le=1 << 20)] = Field(
        default=64 << 10, description="Most bytes of one result; the rest is cut off."
    )

    @property
    def is_server(self) -> bool:
        """True for a server, which is asked what its tools are."""
        return self.python is None

    @field_validator("url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            place = urlsplit(value)
            fits = place.scheme in ("http", "https") and bool(place.hostname) and place.port != 0
        except ValueError:
            fits = False
        if not fits or not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError("must be a URL that begins with https:// or http://")
        if "@" in urlsplit(value).netloc:
            raise ValueError("must hold no user and no password: put a secret into `headers`")
        return value

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            text = secret.get_secret_value()
            if not name or not _TOKEN.issuperset(name) or not text.isascii():
                raise ValueError("must be names and values of HTTP headers, in ASCII")
            if not text.isprintable():
                raise ValueError("must hold no line break and no control character")
        return value

    @field_validator("env")
    @classmethod
    def _is_environment(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            if not name or "=" in name or "\0" in name + secret.get_secret_value():
                raise ValueError("must be names and values of environment variables")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [key for key in ("python", "command", "url") if getattr(self, key)]
        if len(given) > 1:
            raise ValueError(f"has `{given[0]}` and `{given[1]}`: set one of them only")
        if self.python and not all(self.python.partition(":")):
            raise ValueError('has no tools: set `python = "package.module:tools"`')
        if not given or (self.command and not self.command[0]):
            raise ValueError(
                'has no tools: set `python = "package.module:tools"`, or a server by '
                '`command = ["program", "argument"]` or `url = "https://..."`'
            )
        if (self.env or self.cwd or self.log_stderr) and not self.command:
            raise ValueError("has `env`, `cwd` or `log_stderr`, which go with `command` only")
        if self.headers and not self.url:
            raise ValueError("has `headers`, which go with `url` only")
        if any("\0" in part for part in self.command):
            raise ValueError("has a `command` with a NUL character")
        return self

"""The section `[mcp]` of `fleet.toml`."""

from pydantic import Field

from fleet.config.fields import ConfigTable, Count


class McpConfig(ConfigTable):
    """The tools for clients of `POST /mcp`."""

    tools: tuple[str, ...] = Field(
        default=(),
        description="Tool servers that clients may call, under locks: names of `[tools.NAME]`.",
    )
    dispatches_per_minute: Count = Field(
        default=10, description="How often a token may give work by `queue_dispatch`."
    )

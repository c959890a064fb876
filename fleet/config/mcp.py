"""The section `[mcp]` of `fleet.toml`."""

from fleet.config.sections import ConfigTable, Count


class McpConfig(ConfigTable):
    """What the clients of `POST /mcp` are offered."""

    #: Names of [tools.NAME] that are tool servers; their tools are called under locks.
    tools: tuple[str, ...] = ()
    #: So often may each token give work by `queue_dispatch`.
    dispatches_per_minute: Count = 10

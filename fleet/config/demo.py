"""The fleet that runs without a `fleet.toml`: six agents on an offline echo model."""

from typing import Any

#: `sleepy` never answers; its short limit shows a timeout within the demo's patience.
DEMO_TABLES: dict[str, Any] = {
    "agents": {
        "archie": {"model": "echo/brief", "instructions": "You are Archie, the architect."},
        "gem": {"model": "echo/brief", "instructions": "You are Gem, the reviewer."},
        "mini": {"model": "echo/brief", "instructions": "You are Mini, quick and small."},
        "olly": {
            "model": "echo/slow-1",
            "instructions": "You are Olly, local and slower.",
            "stream": True,
        },
        "scout": {"model": "echo/brief", "instructions": "You are Scout, who looks things up."},
        "sleepy": {
            "model": "echo/hang",
            "instructions": "You are Sleepy, who hangs.",
            "timeout_s": 3,
            "retry": {"attempts": 1, "min_age_s": 0},
        },
    },
    "routes": {"default": ["archie"], "groups": {"reviewers": ["gem", "mini"]}},
}

"""An operator sees an agent's configuration without its secrets."""

import json

from fleet.config.settings import parse
from fleet.ops.agent_settings import MASK, masked

SECRETS = ("hunter2", "s3cret", "letmein", "topsecret", "opensesame")


def test_no_secret_is_shown_and_the_rest_is() -> None:
    tables = {
        "agents": {
            "crm": {
                "runner": "http",
                "url": "https://user:hunter2@crm.example/hook",
                "headers": {"X-Whatever": "hunter2"},
                "secret": "topsecret-of-sixteen-characters",
            },
            "tool": {
                "runner": "command",
                "command": ["tool", "--api-key", "hunter2", "--token=s3cret", "-v", "plain"],
                "env": {"ANY": "letmein"},
            },
            "model": {
                "model": "openai/gpt-5",
                "params": {"api_key": "opensesame", "max_tokens": 100, "temperature": 0.1},
                "fallbacks": [{"model": "openai/gpt-4", "params": {"api_key": "opensesame"}}],
                "instructions": "Be brief.",
            },
        },
        "routes": {"default": ["model"]},
    }
    shown = {name: masked(agent) for name, agent in parse(tables).agents.items()}
    text = json.dumps(shown)
    assert not [secret for secret in SECRETS if secret in text]
    assert shown["tool"]["command"] == ["tool", "--api-key", MASK, f"--token={MASK}", "-v", "plain"]
    assert shown["tool"]["env"] == {"ANY": MASK}
    assert shown["model"]["params"] == {"api_key": MASK, "max_tokens": 100, "temperature": 0.1}
    assert shown["model"]["instructions"] == "Be brief."
    assert "max_pending" not in shown["model"]  # not set

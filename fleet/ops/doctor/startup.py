"""The checks of a configuration that `fleet up` makes at its start, and `fleet doctor` too.

They need no broker, no network and no LiteLLM. `fleet up` refuses what is an error, and warns of
the rest.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from fleet.broker.audit import Finding
from fleet.config.hidden_modules import hidden_modules
from fleet.config.listen_address import others_can_reach
from fleet.config.settings import Settings
from fleet.errors import ConfigError
from fleet.ops.doctor.code import check_code


def findings(settings: Settings) -> Iterator[Finding]:
    """The findings, each with its remedy."""
    hidden = [Finding("error", *found) for found in hidden_modules(settings, Path.cwd())]
    yield from hidden
    if not hidden:  # the code that would be imported is another
        yield from check_code(settings)
    yield from _programs(settings)
    yield from _call_timeouts(settings)
    yield from _callbacks(settings)


def _programs(settings: Settings) -> Iterator[Finding]:
    for name, agent in settings.agents.items():
        if agent.runner not in ("command", "pty"):
            continue
        where = Path(agent.cwd or ".")
        if not where.is_dir():
            fault = f"agents.{name}.cwd: there is no folder {agent.cwd}"
            yield Finding("warning", fault, "make it, or correct its path")
            continue
        program, path = agent.command[0], agent.env.get("PATH")
        # A relative path starts at the program's working directory.
        found = where / program if "/" in program else program
        if shutil.which(found, path=path) is None:
            fault = f"agents.{name}.command: there is no program {program!r}"
            yield Finding("warning", fault, "install it where the fleet runs, or correct its name")


def _call_timeouts(settings: Settings) -> Iterator[Finding]:
    for name, agent in settings.agents.items():
        if agent.runner != "llm" or agent.call_timeout_s <= settings.timeout_s(name):
            continue
        fault = (
            f"agents.{name}.call_timeout_s ({agent.call_timeout_s:g} s) is longer than "
            f"its turn ({settings.timeout_s(name):g} s): a hung one leaves others 10 s each"
        )
        if agent.fallbacks:
            yield Finding("warning", fault, "lower it: each tier needs its share of the turn")


def _callbacks(settings: Settings) -> Iterator[Finding]:
    """Services on other machines whose callback address is this machine's loopback."""
    if settings.api.public_url or is_elsewhere(settings.api.host):
        return
    for name, agent in settings.agents.items():
        host = urlsplit(agent.url or "").hostname or ""
        if agent.callback and is_elsewhere(host):
            fault = f"agents.{name}.callback: {host} is told to call back at {settings.api.host}"
            yield Finding("warning", fault, "set api.public_url to where it reaches the API")


def is_elsewhere(host: str) -> bool:
    """True for another machine; an unknown name is not one of this machine."""
    try:
        return others_can_reach(host)
    except ConfigError:
        return True

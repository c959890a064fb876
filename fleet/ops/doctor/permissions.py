"""Files with secrets or content that other users of the machine can read or change."""

import stat
from collections.abc import Iterator
from pathlib import Path

from fleet.broker.audit import Finding
from fleet.config.agents import AgentConfig
from fleet.config.settings import Settings, find_file
from fleet.formats.redaction import mask_url
from fleet.system.data_dir import REMEDY, fault_of

_OTHERS = stat.S_IROTH | stat.S_IWOTH
#: Parts of the names of parameters, headers and variables whose values are secrets.
_SECRET_NAMES = ("key", "token", "secret", "password", "authorization")


def secret_files(settings: Settings) -> Iterator[Finding]:
    """The findings, each with the command that closes the file."""
    path = find_file()
    if path is not None and _holds_secret(settings) and _others_reach(path):
        fault = f"{path} holds a secret and every user of this machine can read it"
        yield Finding("warning", fault, f"chmod 600 {path}")
    data_dir = settings.data_dir
    for folder in (data_dir.absolute(), *data_dir.absolute().parents):
        if folder.exists() and not folder.is_dir():
            yield Finding("error", f"fleet.data_dir: {folder} is not a folder", "name a folder")
            return
    if fault := fault_of(data_dir):
        yield Finding("error", fault, REMEDY)
    if not data_dir.exists() or not _others_enter(data_dir):
        return
    for name in ("broker", "spool", "log"):
        for file in sorted((data_dir / name).glob("*")):
            if file.is_file() and _others_reach(file):
                fault = f"{file} can be read by every user of this machine"
                yield Finding("warning", fault, f"chmod -R go-rwx {data_dir}")
                return


def _others_reach(file: Path) -> bool:
    return bool(file.stat().st_mode & _OTHERS) and _others_enter(file.absolute().parent)


def _others_enter(folder: Path) -> bool:
    """False when `folder`, or a folder above it, is closed to other users."""
    absolute = folder.absolute()
    return all(part.stat().st_mode & stat.S_IXOTH for part in (absolute, *absolute.parents))


def _holds_secret(settings: Settings) -> bool:
    urls = (settings.broker_url, settings.store_url)
    return (
        settings.alerts.webhook is not None
        or settings.upstream.token is not None
        or any(delivery.secret for delivery in settings.deliveries.values())
        or any(url is not None and mask_url(url) != url for url in urls)
        or any(tool.headers or tool.env for tool in settings.tools.values())
        or any(_agent_holds_secret(agent) for agent in settings.agents.values())
    )


def _agent_holds_secret(agent: AgentConfig) -> bool:
    tiers = (name for tier in agent.fallbacks for name in tier.params)
    names = (*agent.params, *tiers, *agent.headers, *agent.env)
    return agent.secret is not None or any(
        part in name.lower() for name in names for part in _SECRET_NAMES
    )

"""`fleet reload`: the running fleet takes its changed configuration."""

import time

import click

from fleet.cli.base import Command, wants_json
from fleet.cli.output import note, print_json, print_line
from fleet.config.settings import Settings, load
from fleet.errors import ConfigError, FleetError
from fleet.system.data_dir_lock import is_up
from fleet.system.reload_answer import ReloadAnswer, read_answer

#: A reload waits for workers that start, and for the processes before them that stop.
TIMEOUT_S = 600.0
POLL_INTERVAL_S = 0.1


@click.command(cls=Command)
def reload() -> int:
    """Take changes of the configuration into the running fleet; exit 1 when it refuses them.

    A broken file changes nothing. A running turn ends with the settings it began with. It says
    what only a restart of `fleet up` changes: the broker, the data folder, addresses, Flower.
    """
    try:
        settings = load()
    except ConfigError as error:
        raise FleetError(f"nothing was changed: {error}") from error
    answer = _answered(settings)
    if wants_json():
        print_json({"ok": answer.ok, "lines": list(answer.lines)})
        return int(not answer.ok)
    for line in answer.lines:
        print_line(line) if answer.ok else note(f"fleet: {line}")
    return int(not answer.ok)


def _answered(settings: Settings) -> ReloadAnswer:
    """The answer of the fleet on this data folder to a reload that begins now."""
    answer = read_answer(settings.data_dir)
    if not is_up(settings.data_dir) or answer is None or answer.gone:
        raise FleetError(
            f"no fleet runs on {settings.data_dir.absolute()}, or it still starts: where "
            "fleet.data_dir was changed, stop `fleet up` and start it again."
        )
    asked, until = answer.request(), time.monotonic() + TIMEOUT_S
    while answer.began < asked:
        if answer.gone:
            raise FleetError("the fleet has stopped before it answered.")
        if time.monotonic() > until:
            raise FleetError(f"no answer within {TIMEOUT_S:g} s; see what `fleet up` prints.")
        time.sleep(POLL_INTERVAL_S)
        answer = read_answer(settings.data_dir) or answer
    return answer

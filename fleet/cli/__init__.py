"""The command line, `fleet`. A command's module is loaded when it is called; help stays quick."""

import errno
import os
import sys
from collections.abc import Sequence

import click

from fleet.cli.base import LazyGroup
from fleet.errors import FleetError
from fleet.system.standard_files import open_missing
from fleet.version import VERSION
from routing.errors import RoutingError

#: A shell's exit code for a process that Ctrl-C ended.
INTERRUPTED = 130

#: Command -> its place, and its line in `fleet --help` (a test keeps it equal to its docstring).
COMMANDS = {
    "up": ("fleet.cli.up:up", "Run the whole fleet on this machine until Ctrl-C."),
    "reload": (
        "fleet.cli.reload:reload",
        "Take changes of the configuration into the running fleet; exit 1 when it refuses them.",
    ),
    "demo": ("fleet.cli.demo:demo", "Run the built-in fleet once, end to end, and show outcomes."),
    "send": ("fleet.cli.send:send", "Send an event to one or more agents."),
    "route": ("fleet.cli.route:route", "Say which agents an event would reach, and why."),
    "agents": ("fleet.cli.agents:agents", "Show the agents; pause, resume and drain them."),
    "queue": (
        "fleet.cli.queues:queue",
        "Look at dispatches; cancel, retry, resend, move and drain them.",
    ),
    "dlq": ("fleet.cli.dead_letters:dlq", "Look at dead letters; replay and purge them."),
    "approve": ("fleet.cli.decide:approve", "Approve a parked dispatch: its chain goes on."),
    "reject": ("fleet.cli.decide:reject", "Reject a parked dispatch: its chain ends."),
    "events": ("fleet.cli.events:events", "Read the bus: every state change, oldest first."),
    "logs": (
        "fleet.cli.logs:logs",
        "Show what an agent has printed, or every process of the fleet.",
    ),
    "alerts": (
        "fleet.cli.alerts:alerts",
        "Show what needs an operator; silence and acknowledge alerts.",
    ),
    "token": ("fleet.cli.tokens:token", "Create, list and revoke API tokens."),
    "context": (
        "fleet.cli.context:context",
        "Keep fleets elsewhere by name; choose the one to work on.",
    ),
    "health": ("fleet.cli.health:health", "Print the health document; exit 1 when down."),
    "doctor": (
        "fleet.cli.doctor:doctor",
        "Check broker, limits, models, code and files; exit 1 when it cannot start or loses data.",
    ),
    "recover": (
        "fleet.cli.recover:recover",
        "Let a fleet go on whose store was emptied or restored.",
    ),
    "host": (
        "fleet.cli.services:host",
        "Run the agents' workers of this machine, and nothing else.",
    ),
    "api": ("fleet.cli.services:api", "Serve the HTTP API in the foreground."),
    "flower": (
        "fleet.cli.services:flower",
        "Serve Flower on flower.port in the foreground.",
    ),
    "upstream": (
        "fleet.cli.services:upstream",
        "Take events from the configured gateway in the foreground.",
    ),
    "broker": ("fleet.cli.services:broker", "Run the embedded broker in the foreground."),
    "bench": ("fleet.cli.bench:bench", "Run a benchmark, or list them."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
@click.version_option(VERSION, prog_name="fleet")
def cli() -> None:
    """A durable fleet of language-model agents on Celery.

    Configuration: --config FILE, else $FLEET_CONFIG, else ./fleet.toml, else the built-in demo
    fleet; FLEET_... in the environment overrides the file. With --url, or a context, most commands
    work on a fleet elsewhere.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 refused or failed, 2 usage or configuration."""
    raise SystemExit(_run(args))


def _run(args: Sequence[str] | None) -> int:
    open_missing()
    # Characters outside this terminal's encoding are shown escaped.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(args, prog_name="fleet", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _failed(_usage(error), error.exit_code)
    except (FleetError, RoutingError) as error:
        return _failed(_sentence(error), getattr(error, "exit_code", 1))
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()  # the reader went away
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename:
            raise
        _discard_output()
        return _failed(f"the output cannot be written: {error.strerror}.", 1)
    return code if isinstance(code, int) else 0


def _discard_output() -> None:
    """Python would fail on the same file when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(sentence: str, code: int) -> int:
    from fleet.cli.output import note

    note(f"fleet: {sentence}")
    return code


def _sentence(error: FleetError | RoutingError) -> str:
    if not hasattr(error, "target"):
        return str(error)
    from fleet.cli.suggestions import sentence

    return sentence(error)


def _usage(error: click.ClickException) -> str:
    sentence = " ".join(error.format_message().split())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{sentence} See `{error.ctx.command_path} --help`."
    return sentence

"""`reference/commands.md`: each command with its arguments and options."""

import inspect
from collections.abc import Iterator

import click

from fleet.cli import cli
from fleet.cli.destination import CONTEXT, TOKEN, URL
from tests.docs.markdown import code, document, sentence, table

INTRODUCTION = """\
Every command takes `--json` (for programs) and `--config FILE`, before or after its name.
`--url URL`, `--token TOKEN` and `--context NAME` choose a fleet elsewhere: see
[Command line from another machine](../operations/remote.md).

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | refused or failed; standard error has one sentence |
| 2 | wrong usage or configuration; standard error has one sentence |
| 130 | ended by Ctrl-C |

For an `ID` its beginning is enough: 6 characters or more, as long as one id only begins so.
Otherwise the refusal names the candidates. Tables show the first 8 characters, and moments as
`3m ago`; `--json` has whole ids and times. A table fits the terminal, or `COLUMNS`; where there is
neither, it is up to 200 characters wide.

`celery -A fleet worker -Q agent.NAME -c 1 -n NAME@%h`, `celery -A fleet beat`, `celery -A fleet
flower` and `celery -A fleet inspect ...` work as any Celery user expects. The broker is
`fleet.broker_url` and nothing else, so `celery -b` is refused."""

#: Options that every command has.
SHARED = ("as_json", "config", "help", URL, TOKEN, CONTEXT)


def page() -> str:
    """The page."""
    parts = [part for name in cli.list_commands(click.Context(cli)) for part in _command(name)]
    return document(
        "Commands",
        "After reading this page you can find each command of `fleet` and its options.",
        INTRODUCTION,
        *parts,
    )


def _command(name: str) -> Iterator[str]:
    top = click.Context(cli, info_name="fleet")
    command = cli.get_command(top, name)
    assert command is not None
    yield from _described(command, click.Context(command, info_name=name, parent=top), "##")


def _described(command: click.Command, context: click.Context, level: str) -> Iterator[str]:
    yield f"{level} `{context.command_path}`"
    yield inspect.cleandoc(command.help or "")
    options = [
        (_shape(parameter, context), _meaning(parameter))
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name not in SHARED
    ]
    if options or not isinstance(command, click.Group):
        usage = [context.command_path, *command.collect_usage_pieces(context)]
        yield f"    {' '.join(usage)}"
    if options:
        yield table(("option", "meaning"), options)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            inner = click.Context(child, info_name=name, parent=context)
            yield from _described(child, inner, f"{level}#")


def _shape(option: click.Option, context: click.Context) -> str:
    name = ", ".join(option.opts)
    return code(name if option.is_flag else f"{name} {option.make_metavar(context)}")


def _meaning(option: click.Option) -> str:
    text, default = sentence(option.help or ""), option.default
    shown = isinstance(default, int | float | str) and default and not option.is_flag
    return f"{text} Default {code(default)}." if shown else text

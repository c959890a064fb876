"""The options of every command, before or after its name: `--json`, `--config`, which fleet."""

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from fleet.cli.destination import CONTEXT, TOKEN, URL, check_here
from routing.nearest_name import question

_JSON = "fleet.json"


def wants_json() -> bool:
    """True when the running command was asked for JSON."""
    return bool(click.get_current_context().meta.get(_JSON))


class Command(click.Command):
    """A command with the shared options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _share_options(self)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, where it works on the chosen fleet."""
        check_here(ctx)
        return super().invoke(ctx)


class Group(click.Group):
    """A group that takes the shared options, as its commands do."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _share_options(self)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Raises UsageError, with the name that was meant."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"No such command {name!r}{self._meant(ctx, name)}", ctx)
        return super().resolve_command(ctx, args)

    def _meant(self, ctx: click.Context, name: str) -> str:
        """The end of a name's refusal: the commands of groups that have it, or one like it."""
        known = self.list_commands(ctx)
        groups = [(one, self.get_command(ctx, one)) for one in known]
        inside = [
            f"`{ctx.command_path} {one} {name}`"
            for one, group in groups
            if isinstance(group, click.Group) and name in group.list_commands(ctx)
        ]
        return f"; did you mean {' or '.join(inside)}?" if inside else question(name, known)


class LazyGroup(Group):
    """A group that loads a command's module when that command is called, and not for help."""

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table, in which a newcomer needs them."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load the command; None for an unknown name."""
        if cmd_name not in self._table:
            return None
        module, _, attribute = self._table[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table's own lines."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._table.items()])


def _share_options(command: click.Command) -> None:
    """Give a command the shared options, except those of a name that it has itself."""
    own = {name for parameter in command.params for name in parameter.opts}
    command.params.extend(one for one in _shared_options() if own.isdisjoint(one.opts))


def _shared_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--json", "as_json"],
            is_flag=True,
            expose_value=False,
            callback=_keep_json,
            help="Print JSON for programs.",
        ),
        click.Option(
            ["--config"],
            metavar="FILE",
            expose_value=False,
            callback=_use_config,
            help="Read this file; the environment still overrides it.",
        ),
        *(
            click.Option(
                [f"--{name}", key],
                metavar=metavar,
                expose_value=False,
                callback=_keep_for_destination,
                help=text,
            )
            for name, key, metavar, text in _OF_DESTINATION
        ),
    ]


#: The options that choose a fleet elsewhere.
_OF_DESTINATION = (
    ("url", URL, "URL", "Work on the fleet at this URL; also FLEET_URL, with FLEET_TOKEN."),
    ("token", TOKEN, "TOKEN", "Its token; also FLEET_TOKEN."),
    ("context", CONTEXT, "NAME", "Work on the fleet of this context; see `fleet context`."),
)


def _keep_for_destination(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta[str(option.name)] = value


def _keep_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_JSON] = True


def _use_config(_ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    # Through the environment, because the processes a command starts must read the same file.
    if value:
        os.environ["FLEET_CONFIG"] = str(Path(value).absolute())

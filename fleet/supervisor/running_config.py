"""The configuration of the running processes: a copy of the file that `fleet up` was started with.

Every process of the fleet reads this copy, also when it is started again. So a file that is being
edited, or that is broken, reaches none of them before a reload has checked it.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.config.settings import FLEET_KEYS, Settings, find_file, parse, read_tables
from fleet.system import files

logger = logging.getLogger(__name__)

#: The copy in the data folder.
NAME = "running.json"
#: Tables and keys that a running fleet keeps: its broker, its folder, its log, where it listens.
FIXED = (
    ("fleet", "broker_url"),
    ("fleet", "store_url"),
    ("fleet", "data_dir"),
    ("fleet", "durability"),
    ("fleet", "broker_tcp"),
    ("fleet", "log_content"),
    ("api", "host"),
    ("api", "port"),
    ("flower",),
)

Tables = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """A valid configuration that a running fleet can take."""

    tables: Tables
    settings: Settings
    #: The keys that differ from the running ones, and those that only a restart would change.
    keys: tuple[str, ...]
    fixed: tuple[str, ...]


class RunningConfig:
    """The running configuration, and the file that it is read from."""

    def __init__(self) -> None:
        """Raises ConfigError."""
        self._source = find_file()
        self._tables: Tables = read_tables(self._source)
        self.settings = parse(dict(self._tables))

    @property
    def _copy(self) -> Path:
        return self.settings.data_dir.absolute() / NAME

    def publish(self) -> None:
        """Have the processes that start from now on read the copy, or the file where there is none.

        A full disk alone keeps no fleet from starting.
        """
        try:
            self._write(self._tables)
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._copy, error.strerror)
            if self._source is not None:
                os.environ["FLEET_CONFIG"] = str(self._source.absolute())

    def read(self) -> Change:
        """Read what the file asks for now. Raises ConfigError."""
        here = Path("fleet.toml")
        source = self._source or (here if here.is_file() else None)
        tables: Tables = read_tables(source)
        wanted = parse(dict(tables))
        for path in FIXED:
            tables = _kept(tables, path, self._tables)
        settings = parse(dict(tables))
        return Change(
            tables,
            settings,
            tuple(differences(self.settings, settings)),
            tuple(differences(settings, wanted)),
        )

    @property
    def running(self) -> Change:
        """The running configuration, to go back to."""
        return Change(self._tables, self.settings, (), ())

    def take(self, change: Change) -> None:
        """Make a change the running configuration. Raises OSError; then nothing has changed."""
        self._write(change.tables)
        self._tables, self.settings = change.tables, change.settings

    def _write(self, tables: Tables) -> None:
        files.replace(self._copy, json.dumps(dict(tables), default=str))
        os.environ["FLEET_CONFIG"] = str(self._copy)


def _kept(tables: Tables, path: tuple[str, ...], running: Tables) -> Tables:
    """`tables` with one key as the running ones have it, or without it."""
    name, *rest = path
    if rest:
        inner = _kept(tables.get(name, {}), tuple(rest), running.get(name, {}))
        return {**tables, name: inner}
    others = {key: value for key, value in tables.items() if key != name}
    return {**others, name: running[name]} if name in running else others


def differences(old: Settings, new: Settings) -> Iterator[str]:
    """The keys that differ, as the file has them; a table that is new, or gone, by its name."""
    for path in _paths(old.model_dump(), new.model_dump()):
        yield ".".join(("fleet", *path) if path[0] in FLEET_KEYS else path)


def _paths(old: Tables, new: Tables) -> Iterator[tuple[str, ...]]:
    for name in dict.fromkeys((*old, *new)):
        before, now = old.get(name), new.get(name)
        if before == now and (name in old) == (name in new):
            continue
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from ((name, *rest) for rest in _paths(before, now))
        else:
            yield (name,)

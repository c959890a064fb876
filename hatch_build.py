"""Lay out the wheel, which installs `fleet` and no other name.

In this repository `routing` and `tasks` are packages of their own. In an environment that others
share, such names hide the modules of others, or are hidden by them. So the wheel holds them as
`fleet.routing` and `fleet.tasks`, and every import of them follows.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MOVED = ("routing", "tasks")
_NAMES = "|".join(MOVED)
#: `from routing import`, `import tasks.x as y`.
_STATEMENT = re.compile(rf"^(\s*(?:from|import) )({_NAMES})(?=[. ])", re.MULTILINE)
#: A module by name: the whole of a string, as `"tasks.dispatch"`.
_STRING = re.compile(rf"([\"'])((?:{_NAMES})\.[a-z_.]+)\1")
#: Would bind a name that is no longer there.
_BARE = re.compile(rf"^\s*import (?:{_NAMES})\b(?!.* as )", re.MULTILINE)


def moved(source: str) -> str:
    """A module's source for the wheel. Raises ValueError for an import that cannot follow."""
    if found := _BARE.search(source):
        raise ValueError(f"{found[0].strip()!r} cannot follow into the wheel: use `from`.")
    return _STRING.sub(r"\1fleet.\2\1", _STATEMENT.sub(r"\1fleet.\2", source))


class Layout(BuildHookInterface):  # type: ignore[type-arg, misc, unused-ignore]
    """Writes the moved sources beside the build; an editable installation needs none."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name each file and its place in the wheel."""
        if version == "editable":
            return
        root = Path(self.root)
        self._folder = tempfile.TemporaryDirectory()
        for package in ("fleet", *MOVED):
            for path in sorted((root / package).rglob("*")):
                if path.is_dir() or "__pycache__" in path.parts:
                    continue
                inside = path.relative_to(root)
                place = Path("fleet", inside) if package in MOVED else inside
                source = path
                if path.suffix == ".py":
                    source = Path(self._folder.name, inside)
                    source.parent.mkdir(parents=True, exist_ok=True)
                    source.write_text(moved(path.read_text(encoding="utf-8")), encoding="utf-8")
                build_data["force_include"][str(source)] = str(place)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was written."""
        if version != "editable":
            self._folder.cleanup()

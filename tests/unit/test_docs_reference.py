"""The generated pages of the documentation are those that the code makes now, and complete."""

import re
from pathlib import Path

import pytest

import fleet.store
from fleet.config.settings import Settings
from fleet.ledger import State
from fleet.ledger.bus_types import FIELDS, TYPES
from tests.docs import FOLDER, PAGES
from tests.docs.settings import sections

SCRIPTS = Path(fleet.store.__file__).parent / "scripts"
#: Written by the API, and never by a script.
NOT_STORED = {"resync_required"}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_as_the_code_makes_it(path: str) -> None:
    assert (FOLDER / path).read_text() == PAGES[path](), "run: make docs"


def test_every_setting_has_one_short_sentence() -> None:
    rows = [row for _, _, rows in sections() for row in rows]
    assert {row.key for row in rows if row.key.startswith("fleet.")} >= {"fleet.broker_url"}
    assert not [row.key for row in rows if not row.sentence or len(row.sentence.split()) > 25]
    assert not [name for name, field in Settings.model_fields.items() if not field.description]


def test_each_type_of_bus_entry_is_declared_and_written() -> None:
    text = "".join(path.read_text() for path in SCRIPTS.glob("*.lua"))
    written = {*re.findall(r"(?:emit|announce)\('(\w+)'", text)} - {"dispatch_"}
    written |= {f"dispatch_{state}" for state in State if state.terminal}
    assert written == TYPES.keys() - NOT_STORED


def test_each_field_of_bus_entries_is_declared_and_used() -> None:
    assert {name for one in TYPES.values() for name in one.fields} == FIELDS.keys()


def test_every_option_says_what_it_does() -> None:
    page = PAGES["reference/commands.md"]()
    assert not re.findall(r"^\| `--.*\|  \|$", page, re.MULTILINE)

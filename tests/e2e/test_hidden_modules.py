"""`fleet up` in a folder whose modules have the names of the fleet's, or of its libraries'."""

import sys
from pathlib import Path

import pytest

from tests.e2e.running import HEAD, place

CONFIG = f'{HEAD}[agents.a]\nrunner = "python"\npython = "mine:answer"\n'


@pytest.mark.parametrize("name", ["tasks.py", "routing.py", "fleet.py", "redis.py"])
def test_it_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("raise SystemExit('of the user')\n")
    with place(tmp_path, CONFIG) as found:
        refused = found.fleet("up", options=["-P"])
        assert refused.code == 2
        sentence = refused.one_sentence()
        assert sentence.startswith(f"{tmp_path / name}: the fleet needs another module")
        assert sentence.endswith("rename this one.")
        assert not found.living()


def test_a_module_of_the_user_that_hides_nothing_answers(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("WORD = 'hello'\n")
    (tmp_path / "mine.py").write_text("import helper\ndef answer(turn): return helper.WORD\n")
    # A script of the user that Python itself has, too, and which nobody names.
    (tmp_path / "calendar.py").write_text("raise SystemExit('of the user')\n")
    # As the command `fleet` does: the folder is not where Python looks first.
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -P "$@"\n')
    script.chmod(0o700)
    with place(tmp_path, CONFIG) as found:
        found.python = script
        found.up()
        assert found.outcome("x", "--to", "a")["answer"] == "hello"
        assert found.stop() == 0

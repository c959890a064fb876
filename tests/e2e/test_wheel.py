"""The built wheel in an environment of its own, beside modules with names like the fleet's."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.e2e.running import COMMAND_S, HEAD, place

ROOT = Path(__file__).resolve().parents[2]
CONFIG = f'{HEAD}[agents.a]\nrunner = "python"\npython = "mine:answer"\n'
SHIPPED = {".css", ".html", ".js", ".lua", ".py", ".svg", ".txt", ".typed"}
#: The user's modules: their names are those of packages in the fleet's repository.
MINE = {
    "tasks/__init__.py": "WORD = 'from my own tasks'\n",
    "routing.py": "WORD = 'and my own routing'\n",
    "mine.py": "import routing, tasks\ndef answer(turn): return f'{tasks.WORD} {routing.WORD}'\n",
    "web.py": (
        "import routing, tasks\nfrom fleet import load_settings\nfrom fleet.celery import app\n"
        "app.send_task('fleet.intake', [{'to': 'a', 'text': 'x', 'id': '1'}], queue='intake')\n"
        "print(tasks.WORD, routing.WORD, *load_settings().agents)\n"
    ),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=COMMAND_S)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # As pip and pipx do it, which makes the command; the libraries are there.
    place_ = str(folder / "bin" / "python")
    command = [sys.executable, "-m", "pip", "--python", place_, "install", str(wheel)]
    quietly = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--no-cache-dir"]
    subprocess.run([*command, *quietly], check=True, timeout=COMMAND_S)
    # Their folder alone: this project's own `.pth` in it has no effect.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"


def test_the_wheel_holds_one_name_and_every_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name) for name in archive.namelist()}
    assert {name.parts[0] for name in names if ".dist-info" not in name.parts[0]} == {"fleet"}
    for package in ("fleet", "routing", "tasks"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and path.suffix in SHIPPED:
                place_ = path.relative_to(ROOT)
                assert (place_ if package == "fleet" else Path("fleet", place_)) in names


def test_every_module_is_imported_under_the_one_name(python: Path) -> None:
    program = (
        "import pkgutil, sys, fleet\n"
        "for one in pkgutil.walk_packages(fleet.__path__, 'fleet.'):\n"
        "    if not one.name.startswith(('fleet.bench', 'fleet.celery', 'fleet.__main__')):\n"
        "        __import__(one.name)\n"
        "print(sorted({'tasks', 'routing'} & set(sys.modules)), len(sys.modules))\n"
    )
    done = subprocess.run(
        [python, "-P", "-c", program],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert done.stdout.startswith("[] "), done.stderr


def test_the_command_is_installed_and_finds_its_parts(python: Path, tmp_path: Path) -> None:
    program = [str(python.parent / "fleet"), "--config", str(tmp_path / "fleet.toml")]
    (tmp_path / "fleet.toml").write_text(CONFIG)
    for args, said in ((["--version"], "fleet, version"), (["route", "hi", "--to", "a"], "a")):
        done = subprocess.run(
            [*program, *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout


def test_a_project_with_its_own_tasks_sends_and_answers(python: Path, tmp_path: Path) -> None:
    for name, text in MINE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with place(tmp_path, CONFIG) as found:
        found.python = python
        found.up()
        words = "from my own tasks and my own routing"
        assert found.outcome("x", "--to", "a")["answer"] == words
        done = subprocess.run(
            [python, "web.py"],
            cwd=tmp_path,
            env=found.env,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.stdout == f"{words} a\n", done.stderr
        assert found.stop() == 0

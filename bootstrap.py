"""Make .venv match compose/requirements.lock. Standard library only: nothing is installed yet.

Run as `python3 bootstrap.py`. Afterwards .venv holds exactly the locked, hash-checked packages and
this project, editable. A second run finds that and returns at once; two runs at the same time wait
for each other; a run that was killed is repeated from the start by the next one.
"""

from __future__ import annotations  # an older Python must get as far as the sentence in main()

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "compose" / "requirements.lock"
STAMP = VENV / ".bootstrap"
PIP = (PYTHON, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")


def main() -> None:
    """Bring .venv up to date, or exit 1 with one sentence that says what to do."""
    if sys.version_info < (3, 11):  # noqa: UP036 - any python3 may be asked to run this
        raise SystemExit(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}.")
    with one_at_a_time():
        try:
            bring_up_to_date()
        except subprocess.CalledProcessError as error:
            command = " ".join(map(str, error.cmd))
            raise SystemExit(f"The environment is not complete: `{command}` failed.") from None
        except KeyboardInterrupt:
            raise SystemExit(130) from None


def bring_up_to_date() -> None:
    """Install what the stamp says is missing: everything, the project alone, or nothing."""
    packages, project = wanted()
    found = STAMP.read_text().split() if STAMP.exists() and PYTHON.exists() else []
    if found == [packages, project]:
        return
    STAMP.unlink(missing_ok=True)
    uv = working_uv()
    if found[:1] != [packages]:
        say(f"creating .venv from {LOCK.relative_to(ROOT)} ({'uv' if uv else 'pip'}) ...")
        if not (uv and install_with_uv(uv)):
            install_with_pip()
    install_project(uv)
    STAMP.write_text(f"{packages}\n{project}\n")
    say("ready")


def wanted() -> tuple[str, str]:
    """The stamps of an environment that is up to date: of its packages and of the project.

    The folder counts, because scripts in .venv/bin name their interpreter by its full path.
    """
    packages = hashlib.sha256(f"{sys.version} {ROOT}\n".encode())
    packages.update(LOCK.read_bytes())
    return packages.hexdigest(), hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()


def working_uv() -> str | None:
    """Where uv is, unless what PATH calls uv does not run (a version manager's empty shim)."""
    uv = shutil.which("uv")
    if uv and subprocess.run([uv, "--version"], capture_output=True, check=False).returncode == 0:
        return uv
    return None


def install_with_uv(uv: str) -> bool:
    """True when uv made the environment. It ignores pip's configuration, so pip may still do it."""
    try:
        run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, VENV)
        run(
            uv,
            "pip",
            "sync",
            "--quiet",
            "--compile-bytecode",
            "--require-hashes",
            "--python",
            PYTHON,
            LOCK,
        )
    except subprocess.CalledProcessError:
        say("uv could not install the lock (its message is above); trying pip")
        return False
    return True


def install_with_pip() -> None:
    """Make the environment with nothing but Python itself."""
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        raise SystemExit(
            "Python's venv module is incomplete here. Install it "
            "(Debian, Ubuntu: apt-get install python3-venv), or install uv, and try again."
        )
    run(sys.executable, "-m", "venv", "--clear", VENV)
    run(*PIP, "--require-hashes", "-r", LOCK)


def install_project(uv: str | None) -> None:
    """Install this project editable, with the locked build backend and no other download."""
    if (VENV / "bin" / "pip").exists():
        run(*PIP, "--no-deps", "--no-build-isolation", "--editable", ROOT)
    elif uv:
        run(
            uv,
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--python",
            PYTHON,
            "--editable",
            ROOT,
        )
    else:
        raise SystemExit("uv made .venv and is gone from PATH: run `make clean`, then try again.")


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait for another bootstrap of this folder; the system drops the lock when a holder dies."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def run(*command: str | Path) -> None:
    """Run a command with its output on standard error; standard output stays for the caller's."""
    subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr, stdin=subprocess.DEVNULL)


def say(text: str) -> None:
    """Tell a person how far it is."""
    print(f"bootstrap: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "compose" / "requirements.lock"
STAMP = VENV / ".bootstrap"
#: Between two lines about an installation that still runs.
PROGRESS_INTERVAL_S = 10.0
#: Run by the new Python. Quiet: some packages carry files for other Pythons, never imported here.
COMPILE = (
    "import compileall, sysconfig; "
    "compileall.compile_dir(sysconfig.get_path('purelib'), quiet=2, workers=0)"
)
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
    if found[:1] != [packages] and not (uv and install_with_uv(uv)):
        install_with_pip()
    say("installing this project ...")
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
    """The path of uv; None for a uv that does not run, such as a version manager's empty shim."""
    uv = shutil.which("uv")
    if uv and subprocess.run([uv, "--version"], capture_output=True, check=False).returncode == 0:
        return uv
    return None


def install_with_uv(uv: str) -> bool:
    """True when uv made the environment. It ignores pip's configuration, so pip may still do it."""
    say(f"installing about {locked()} packages with uv: seconds when cached, else a minute or two")
    try:
        run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, VENV)
        install(
            *(uv, "pip", "sync", "--quiet", "--compile-bytecode", "--require-hashes"),
            *("--python", PYTHON, LOCK),
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
    say("creating .venv ...")
    run(sys.executable, "-m", "venv", "--clear", VENV)
    say(f"installing about {locked()} packages with pip: a minute or two (uv would be faster)")
    # The lock is complete: nothing has to be resolved, and its pip replaces Python's own. pip would
    # compile on one core.
    install(*PIP, "--no-compile", "--no-deps", "--require-hashes", "-r", LOCK)
    say("compiling them on all cores ...")
    run(PYTHON, "-c", COMPILE)


def install(*command: str | Path) -> None:
    """Run a command that installs the lock, and say how far it is."""
    started, total = time.monotonic(), locked()
    with subprocess.Popen(
        command, cwd=ROOT, stdout=sys.stderr, stdin=subprocess.DEVNULL
    ) as installing:
        while (code := waited(installing)) is None:
            there = len(list(VENV.glob("lib/python*/site-packages/*.dist-info")))
            seconds = time.monotonic() - started
            say(f"  {there} packages of about {total} installed after {seconds:.0f} s")
    if code:
        raise subprocess.CalledProcessError(code, command)


def waited(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code of a process that ends within PROGRESS_INTERVAL_S, None otherwise."""
    try:
        return process.wait(PROGRESS_INTERVAL_S)
    except subprocess.TimeoutExpired:
        return None


def locked() -> int:
    """The number of packages in the lock, those of other platforms included."""
    return sum("==" in line for line in LOCK.read_text().splitlines() if line[:1].isalnum())


def install_project(uv: str | None) -> None:
    """Install this project editable, with the locked build backend and no download."""
    how = ("--no-deps", "--no-build-isolation", "--editable", ROOT)
    if uv:
        run(uv, "pip", "install", "--quiet", "--python", PYTHON, *how)
    else:
        run(*PIP, *how)


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
    """Print a line of progress."""
    print(f"bootstrap: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

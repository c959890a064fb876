"""The harness of all benchmarks: a broker and a folder, rounds of two contenders, and the report.

A benchmark has a folder of its own below the fleet's data folder, and an embedded broker of its
own. Its environment is without the settings of the user's fleet. Both contenders share the broker,
the machine and the minutes: their rounds alternate, and so does the first contender.
"""

import os
import platform
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import redis

from fleet.bench import _turns
from fleet.broker.embedded import EmbeddedBroker, Endpoint
from fleet.broker.server import Durability, server_info
from fleet.config.settings import load
from fleet.errors import ConfigError, FleetError

Option = int | float | str
Figures = dict[str, Any]

#: A turn's line comes within milliseconds; after this long the run fails.
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Line:
    """The line of a turn, written at its start."""

    number: str
    at_ns: int  #: CLOCK_MONOTONIC
    pid: int


class Lab:
    """The folder, the broker and the log of one benchmark."""

    def __init__(self, folder: Path, durability: Durability, random_: random.Random) -> None:
        self.folder = folder
        self.durability = durability
        self.random = random_
        self.kept = False  #: True keeps the folder at the end, for an examination
        self.log = folder / "turns.log"
        self.log.touch()
        self.broker = EmbeddedBroker(folder, durability)
        self.endpoint: Endpoint = self.broker.start()
        if not self.endpoint.socket.startswith(str(folder)):
            self.broker.stop()
            raise ConfigError(
                f"fleet.data_dir: {folder.parent} is too deep for a benchmark, whose processes "
                "share a socket in it: set another."
            )
        self._read = 0
        self._part = b""

    def lines(self) -> list[Line]:
        """Lines of turns since the last call."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            new = log.read()
        self._read += len(new)
        *whole, self._part = (self._part + new).split(b"\n")
        split = (line.decode().split(" ") for line in whole)
        return [Line(number, int(at_ns), int(pid)) for number, at_ns, pid in split]

    def await_lines(self, numbers: set[str], timeout_s: float = TIMEOUT_S) -> dict[str, Line]:
        """Wait for the first line of each number; ignore other lines. Raises FleetError."""
        found: dict[str, Line] = {}
        until = time.monotonic() + timeout_s
        while len(found) < len(numbers):
            for line in self.lines():
                if line.number in numbers:
                    found.setdefault(line.number, line)
            if time.monotonic() > until:
                raise FleetError(
                    f"{len(numbers) - len(found)} of {len(numbers)} turns did not start within "
                    f"{timeout_s:g} s; the logs are in {self.folder} while this runs."
                )
            # The longest pause that keeps the figures: reading loads the measured machine.
            time.sleep(0.001)
        return found

    def client(self, db: int = 0) -> "redis.Redis":
        """A plain connection to the broker."""
        url = self.endpoint.url.replace("?db=0", f"?db={db}")
        return redis.Redis.from_url(url, decode_responses=True)

    def through(self, port: int, db: int = 0) -> str:
        """The broker's URL behind a proxy on `port`."""
        return f"redis://:{urlsplit(self.endpoint.url).password}@127.0.0.1:{port}/{db}"


@contextmanager
def lab(options: Mapping[str, Option]) -> Iterator[Lab]:
    """Open a lab in a new folder; unless `kept`, it is removed at the end, by SIGTERM too."""
    root = load().data_dir.absolute()
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=root))
    ours = {name: os.environ.pop(name) for name in list(os.environ) if _hidden(name)}
    made = None
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        os.environ[_turns.LOG] = str(folder / "turns.log")
        durability: Durability = "always" if options["durability"] == "always" else "everysec"
        made = Lab(folder, durability, random.Random(options["seed"]))
        try:
            yield made
        finally:
            made.broker.stop()
    finally:
        signal.signal(signal.SIGTERM, before)
        os.environ.pop(_turns.LOG, None)
        os.environ.update(ours)
        if made is None or not made.kept:
            shutil.rmtree(folder, ignore_errors=True)


def _hidden(name: str) -> bool:
    """True for settings of the user's fleet, except the server's binary and settings of tests."""
    return name.startswith("FLEET_") and not name.startswith(("FLEET_REDIS_SERVER", "FLEET_TEST_"))


def _exit(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def parse_options(defaults: Mapping[str, Option], given: Mapping[str, Option]) -> dict[str, Option]:
    """The options of a run, each of its default's type.

    Raises ConfigError for an unknown option, and for a value that is not a number above zero. An
    option with the default 0 may be 0.
    """
    unknown = set(given) - set(defaults)
    if unknown:
        raise ConfigError(f"--{min(unknown)}: not an option here; known are {', '.join(defaults)}.")
    try:
        found = {name: type(value)(given.get(name, value)) for name, value in defaults.items()}
    except ValueError as error:
        raise ConfigError(f"A number is wanted: {error}.") from error
    for name, value in found.items():
        if name != "seed" and not isinstance(value, str) and value <= 0 and defaults[name]:
            raise ConfigError(f"--{name}: must be above zero.")
    if found.get("durability", "always") not in ("always", "everysec"):
        raise ConfigError("--durability: must be always or everysec.")
    return found


def in_turns(rounds: int, contenders: Sequence[Any], measure: Callable[[Any], Figures]) -> Any:
    """Run `rounds` of `measure` in the order A B B A A B ...; one list of figures a contender."""
    results: list[list[Figures]] = [[] for _ in contenders]
    order = list(enumerate(contenders))
    for number in range(rounds):
        for place, contender in order:
            results[place].append(measure(contender))
            text = " ".join(f"{k}={v:g}" for k, v in results[place][-1].items())
            progress(f"round {number + 1}/{rounds} {contender.name}: {text}")
        order.reverse()
    return results


def medians(rounds: Sequence[Figures]) -> Figures:
    """The median of each figure over the rounds."""
    return {name: rounded(statistics.median(r[name] for r in rounds)) for name in rounds[0]}


@dataclass(frozen=True, slots=True)
class Bench:
    """A running benchmark: its options and its lab."""

    name: str
    of: str  #: the peer
    options: dict[str, Option]
    where: Lab

    def number(self, name: str) -> int:
        """An option as a whole number."""
        return int(self.options[name])

    def in_turns(
        self, contenders: Sequence[Any], measure: Callable[[Any], Figures], times: int = 1
    ) -> Any:
        """Call `in_turns` for `times` the rounds of the option."""
        return in_turns(times * self.number("rounds"), contenders, measure)

    def compare(
        self, contenders: Sequence[Any], measure: Callable[[Any], Figures]
    ) -> dict[str, Any]:
        """Compare two contenders by the medians of their rounds."""
        ours, theirs = self.in_turns(contenders, measure)
        return self.report(medians(ours), medians(theirs))

    def report(self, ours: Figures, theirs: Figures) -> dict[str, Any]:
        """The object that is printed."""
        return report(self.name, self.where, self.options, ours, theirs, self.of)


@contextmanager
def bench(
    name: str, of: str, defaults: Mapping[str, Option], given: Mapping[str, Option]
) -> Iterator[Bench]:
    """Parse the options and open a lab. Raises ConfigError."""
    options = parse_options(defaults, given)
    with lab(options) as where:
        yield Bench(name, of, options, where)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that a `share` of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def rounded(value: float) -> float:
    """Four significant digits: more than any of these figures is good for."""
    return float(f"{value:.4g}")


def ratio(ours: Figures, theirs: Figures) -> Figures:
    """Divide ours by theirs, figure by figure; None where the divisor is zero or absent."""
    out: Figures = {}
    for name, value in ours.items():
        other = theirs.get(name)
        if isinstance(value, dict):
            out[name] = ratio(value, other or {})
        else:
            out[name] = rounded(value / other) if other else None
    return out


def report(
    name: str, where: Lab, options: Mapping[str, Option], ours: Figures, theirs: Figures, of: str
) -> dict[str, Any]:
    """The object that is printed."""
    return {
        "name": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(where),
        "seed": options["seed"],
        "options": dict(options),
        "figures": ours,
        "baseline": {"of": of, **theirs},
        "ratio": ratio(ours, theirs),
    }


def machine(where: Lab) -> dict[str, Any]:
    """The machine and the software behind the figures."""
    info = server_info(where.endpoint.url)
    kind = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "load": rounded(os.getloadavg()[0]),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "broker": f"{kind} {info.get('valkey_version') or info.get('redis_version')}",
        "fsync": where.durability,
    }


def progress(text: str) -> None:
    """Print a line of progress on standard error."""
    print(text, file=sys.stderr, flush=True)


class SenderThread(ABC):
    """A sender in a thread of its own, whose error is raised in the main thread."""

    name = "event"

    def __init__(self) -> None:
        self.over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @abstractmethod
    def run(self) -> None:
        """Send until `over` is set."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the answer to the current call."""
        self.over.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self) -> None:
        """Raise FleetError when the thread has failed."""
        if self._error is not None:
            raise FleetError(f"The {self.name} sender failed: {self._error!r}") from self._error

    def _run(self) -> None:
        try:
            self.run()
        except BaseException as error:  # noqa: BLE001 - raised by `check` in the main thread
            self._error = error

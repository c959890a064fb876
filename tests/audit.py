"""A list of what the fleet is made of, and what is known against it: `make audit`.

The list is CycloneDX, made of the lock of the image and of nothing else. Advisories are OSV's, as
pip-audit finds them; they are asked for the lock of everything. Where OSV does not answer they are
skipped, and that is said.
"""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from fleet.version import VERSION

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
RUNTIME, EVERYTHING = (ROOT / "compose" / f"{name}.lock" for name in ("runtime", "requirements"))
#: One advisory of the service that pip-audit asks.
SERVICE = "https://api.osv.dev/v1/vulns/PYSEC-2018-28"
TIMEOUT_S = 10.0


def main() -> int:
    """Write the list and ask for advisories; the exit code is 1 when there is one."""
    BUILD.mkdir(exist_ok=True)
    path = BUILD / "sbom.json"
    path.write_text(bill(RUNTIME.read_text()))
    say(f"{path.relative_to(ROOT)}: the packages of compose/runtime.lock, as CycloneDX")
    if fault := unreachable(SERVICE):
        say(f"advisories: skipped, because {SERVICE} does not answer ({fault})")
        return 0
    return advisories(EVERYTHING)


def bill(lock: str) -> str:
    """The packages of a lock with their hashes, as CycloneDX in JSON."""
    bom = Bom(components=components(lock))
    fleet = Component(type=ComponentType.APPLICATION, name="agent-fleet", version=VERSION)
    bom.metadata.component = fleet
    bom.register_dependency(fleet, bom.components)
    made = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
    return f"{made.output_as_string(indent=2)}\n"


def components(lock: str) -> Iterator[Component]:
    """Each package of a lock."""
    for block in re.split(r"\n(?=\S)", lock.strip()):
        name, version = re.match(r"([\w.-]+)==([^\s;\\]+)", block).groups()  # type: ignore[union-attr]
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=version,
            bom_ref=f"{name}=={version}",
            purl=PackageURL("pypi", name=name, version=version),
            hashes=[
                HashType(alg=HashAlgorithm.SHA_256, content=found)
                for found in re.findall(r"--hash=sha256:(\w+)", block)
            ],
        )


def unreachable(url: str) -> str | None:
    """The fault of a service that does not tell advisories; None when it does."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - a constant
            told = "affected" in json.load(answer)
            return None if told else "it tells no advisories"
    except ValueError:
        return "it does not answer in JSON"
    except urllib.error.URLError as error:
        return str(error.reason)
    except OSError as error:
        return error.strerror or type(error).__name__


def advisories(lock: Path) -> int:
    """The exit code of pip-audit, which says what is known against the packages of a lock."""
    # The lock is whole, so nothing is resolved and nothing downloaded.
    options = ("--require-hashes", "--disable-pip", "--strict", "--progress-spinner=off")
    service = ("--vulnerability-service", "osv")
    argv = [sys.executable, "-m", "pip_audit", *service, *options, "--requirement", str(lock)]
    return subprocess.run(argv, check=False).returncode


def say(text: str) -> None:
    """A line for the person at the terminal."""
    sys.stderr.write(f"audit: {text}\n")


if __name__ == "__main__":
    sys.exit(main())

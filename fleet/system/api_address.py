"""Where the API of a data folder listens, for the other processes of the fleet."""

import json
import os
from pathlib import Path

from fleet.system import files

_FILE = "api.json"


def write_address(data_dir: Path, url: str) -> None:
    """Say that this process serves `url`; a reader sees the old one or this. Raises OSError."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    files.replace(data_dir / _FILE, json.dumps({"url": url, "pid": os.getpid()}))


def read_address(data_dir: Path) -> str | None:
    """The URL of the API that serves this data folder, or None; a killed one may still be told."""
    told = files.read_json(data_dir / _FILE)
    return str(told["url"]) if told and "url" in told else None


def forget_address(data_dir: Path) -> None:
    """Take back what this process wrote; a newer API's address stays. Raises OSError."""
    told = files.read_json(data_dir / _FILE)
    if told and told.get("pid") == os.getpid():
        (data_dir / _FILE).unlink(missing_ok=True)

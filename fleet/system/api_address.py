"""The address of a data folder's API, published for the other processes of the fleet."""

import json
import os
from pathlib import Path

from fleet.system import files

_FILE = "api.json"


def write_address(data_dir: Path, url: str) -> None:
    """Publish that this process serves `url`; a reader sees the old URL or this. Raises OSError."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    files.replace(data_dir / _FILE, json.dumps({"url": url, "pid": os.getpid()}))


def read_address(data_dir: Path) -> str | None:
    """The URL of the API of this data folder, or None; after a kill it may be out of date."""
    found = files.read_json(data_dir / _FILE)
    return str(found["url"]) if found and "url" in found else None


def forget_address(data_dir: Path) -> None:
    """Remove the address that this process wrote; a newer API's stays. Raises OSError."""
    found = files.read_json(data_dir / _FILE)
    if found and found.get("pid") == os.getpid():
        (data_dir / _FILE).unlink(missing_ok=True)

"""Where the API of a data folder listens, for the other processes of the fleet."""

import json
import os
from pathlib import Path

_FILE = "api.json"


def write_address(data_dir: Path, url: str) -> None:
    """Say that this process serves `url`; a reader sees the old one or this. Raises OSError."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = data_dir / f"{_FILE}.{os.getpid()}"
    draft.write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
    draft.replace(data_dir / _FILE)


def read_address(data_dir: Path) -> str | None:
    """The URL of the API that serves this data folder, or None; a killed one may still be told."""
    told = _read(data_dir)
    return str(told["url"]) if told else None


def forget_address(data_dir: Path) -> None:
    """Take back what this process wrote; a newer API's address stays."""
    told = _read(data_dir)
    if told and told["pid"] == os.getpid():
        (data_dir / _FILE).unlink(missing_ok=True)


def _read(data_dir: Path) -> dict[str, str | int] | None:
    try:
        told: dict[str, str | int] = json.loads((data_dir / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return told

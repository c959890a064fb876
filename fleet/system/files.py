"""The small files of a data folder: written whole or not at all, and set aside when damaged.

A damaged file is never taken for an empty one: it is kept under another name, and a line is logged.
"""

import json
import logging
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def replace(path: Path, text: str, *, sync: bool = False) -> None:
    """Write a file whole: readers see the old content or the new. Several processes may write.

    Only the owner may read the file. Raises OSError; then the old content is still there.
    """
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def read_json(path: Path, *, copy: bool = False) -> dict[str, Any] | None:
    """The object in a file; None for a missing file, and for a damaged one, which is set aside.

    `copy`: see `set_aside`. Raises OSError where the file cannot be read.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        set_aside(path, f"it is not JSON: {type(error).__name__}", copy=copy)
        return None
    if not isinstance(found, dict):
        set_aside(path, "it holds no JSON object", copy=copy)
        return None
    return found


def set_aside(path: Path, why: str, *, copy: bool = False) -> Path | None:
    """Rename a damaged file to `NAME.damaged-TIME` and log it; the new path, None if that failed.

    `copy` leaves the file in place, because other processes hold it open.
    """
    kept = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    try:
        if copy:
            shutil.copy(path, kept)
        else:
            path.replace(kept)
    except OSError as error:
        logger.error("%s is damaged (%s) and cannot be set aside (%s)", path, why, error.strerror)
        return None
    logger.error("%s is damaged (%s): it was set aside as %s", path, why, kept.name)
    return kept

"""Contexts: the fleets elsewhere that a person works with, each with its URL and its token.

They are in one file of the user's, which only the user may read. A token is in the system's
keyring where the package `keyring` is installed and works, otherwise in that file.
"""

import json
import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fleet.client.connection import checked_url
from fleet.errors import ConfigError
from fleet.system import files

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEYRING = "agent-fleet"


@dataclass(frozen=True, slots=True)
class Context:
    """A fleet elsewhere; `token` is None where it is in the keyring, or where there is none."""

    url: str
    token: str | None = None
    in_keyring: bool = False

    @property
    def place(self) -> str:
        """The place of its token, for people."""
        if self.in_keyring:
            return "keyring"
        return "none" if self.token is None else "file"


@dataclass(frozen=True, slots=True)
class Contexts:
    """The file."""

    current: str | None = None
    table: dict[str, Context] = field(default_factory=dict)

    def get(self, name: str) -> Context:
        """The context of this name. Raises ConfigError."""
        if name not in self.table:
            known = f" ({', '.join(sorted(self.table))})" if self.table else ""
            raise ConfigError(
                f"There is no context {name[:64]!r}{known}: `fleet context add` makes one."
            )
        return self.table[name]


def path() -> Path:
    """The file of the contexts."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "fleet" / "contexts.json"


def read() -> Contexts:
    """Every context; none where there is no file. Raises ConfigError."""
    file = path()
    try:
        with file.open() as opened:
            mode = os.fstat(opened.fileno()).st_mode
            found = json.load(opened)
        table = {name: Context(**one) for name, one in found["contexts"].items()}
        current = found.get("current")
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}).") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{file}: is damaged; remove it, and add the contexts again.") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(
            f"{file}: others may read it, and it can hold tokens; run chmod 600 on it."
        )
    return Contexts(current if current in table else None, table)


def add(name: str, url: str, token: str | None) -> Context:
    """Keep a context, in the place of one of this name. Raises ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:64]!r} cannot name a context: use 1 to 64 letters, digits, dots, dashes or _."
        )
    found = read()
    if name in found.table:
        _forget_token(name, found.table[name])
    made = Context(checked_url(url), token)
    if token is not None and _into_keyring(name, token):
        made = Context(made.url, in_keyring=True)
    _write(replace(found, table={**found.table, name: made}))
    return made


def use(name: str | None) -> None:
    """Make the context of this name the one in use; None is this machine. Raises ConfigError."""
    found = read()
    if name is not None:
        found.get(name)
    _write(replace(found, current=name))


def remove(name: str) -> None:
    """Forget a context and its token. Raises ConfigError."""
    found = read()
    _forget_token(name, found.get(name))
    left = {other: one for other, one in found.table.items() if other != name}
    _write(Contexts(None if found.current == name else found.current, left))


def token_of(name: str, context: Context) -> str | None:
    """The token of a context. Raises ConfigError where the keyring does not give it."""
    if not context.in_keyring:
        return context.token
    ring, why = _keyring(), "the package keyring is not installed here"
    if ring is not None:
        try:
            text = ring.get_password(_KEYRING, name)
            if text is not None:
                return str(text)
            why = "it is not there"
        except Exception as error:  # noqa: BLE001 - each system's keyring has errors of its own
            why = type(error).__name__
    raise ConfigError(
        f"The token of context {name} cannot be had from the keyring ({why}): unlock the keyring, "
        f"or keep it anew with `fleet context add {name}`."
    )


def _write(contexts: Contexts) -> None:
    file = path()
    table = {
        name: {
            "url": one.url,
            **({"token": one.token} if one.token is not None else {}),
            **({"in_keyring": True} if one.in_keyring else {}),
        }
        for name, one in contexts.table.items()
    }
    text = json.dumps({"current": contexts.current, "contexts": table}, indent=2)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(file, f"{text}\n", sync=True)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written ({error.strerror}).") from error


def _keyring() -> Any:
    """The package; None where it is not installed, or has no place to keep anything."""
    try:
        import keyring
        from keyring.backends.fail import Keyring as Nowhere
    except ImportError:
        return None
    return None if isinstance(keyring.get_keyring(), Nowhere) else keyring


def _into_keyring(name: str, token: str) -> bool:
    """True when the keyring has it, and gives it back; otherwise the file keeps it."""
    ring = _keyring()
    try:
        if ring is None:
            return False
        ring.set_password(_KEYRING, name, token)
        return bool(ring.get_password(_KEYRING, name) == token)
    except Exception:  # noqa: BLE001 - each system's keyring has errors of its own
        return False


def _forget_token(name: str, context: Context) -> None:
    ring = _keyring() if context.in_keyring else None
    if ring is None:
        return
    try:
        ring.delete_password(_KEYRING, name)
    except Exception as error:
        raise ConfigError(
            f"The token of context {name} cannot be removed from the keyring "
            f"({type(error).__name__}): unlock the keyring."
        ) from error

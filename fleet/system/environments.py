"""The environment of the processes that are started here: who gets which secrets.

A process that runs turns has the environment that the fleet was started with, because an agent's
code and its model need their keys. Another process of the fleet has none of its secrets. A program
of an agent or of its tools has what every program needs, and what its table names.

The API starts a process that runs turns while the broker is away. It gets the secrets as a file
that only that process reads: they are in no environment on the way.
"""

import json
import os
import re
import tempfile
from collections.abc import Mapping

#: Names of variables that look like a secret: a provider's key, a password.
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
#: Of the command line, for a fleet elsewhere: named like a setting, and none.
_OF_A_PERSON = "FLEET_TOKEN"
#: Settings of the processes themselves.
_SETTINGS = ("FLEET_", "FLOWER_", "OTEL_")
#: What a program needs to run, to find its files and to speak with a person. A proxy's address may
#: hold a password.
_COMMON = frozenset(
    {
        *("HOME", "LOGNAME", "USER", "SHELL", "PATH", "PWD", "TMPDIR", "TMP", "TEMP", "HOSTNAME"),
        *("LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM", "NO_COLOR"),
        *("LD_LIBRARY_PATH", "VIRTUAL_ENV"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    }
)
_COMMON_PREFIXES = ("LC_", "XDG_")
#: A shorter value may be any word.
_SECRET_CHARS_MIN = 8
#: Names the file of secrets in a child's environment.
SECRETS_FD = "FLEET_SECRETS_FD"


def without_secrets() -> dict[str, str]:
    """Our environment, for a process of the fleet that runs no turn."""
    return {name: value for name, value in os.environ.items() if not _is_secret(name)}


def hide_secrets(text: str) -> str:
    """`text` with every secret of our environment in it replaced by `***`."""
    for name, value in os.environ.items():
        if len(value) >= _SECRET_CHARS_MIN and _is_secret(name):
            text = text.replace(value, "***")
    return text


def of_program(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that is not ours: what every program needs, and `given`.

    A value `$NAME` is our own variable of that name. Raises KeyError with the name of one that is
    not set.
    """
    common = {
        name: value
        for name, value in os.environ.items()
        if name in _COMMON or name.startswith(_COMMON_PREFIXES)
    }
    return common | {name: _filled(value) for name, value in given.items()}


def secrets_file() -> int:
    """A file without a name that holds our secrets, for `receive_secrets` in a child's child."""
    held = {name: value for name, value in os.environ.items() if _is_secret(name)}
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("secrets")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.write(fd, json.dumps(held).encode())
    return fd


def secrets_fd() -> list[int]:
    """The number of the file of secrets that this process was given, to pass it on."""
    number = os.environ.get(SECRETS_FD)
    return [int(number)] if number else []


def receive_secrets() -> None:
    """Move the secrets from the file that this process was given into its environment."""
    for number in secrets_fd():
        size = os.fstat(number).st_size
        os.environ.update(json.loads(os.pread(number, size, 0)))
        os.close(number)
        del os.environ[SECRETS_FD]


def _is_secret(name: str) -> bool:
    is_setting = name.startswith(_SETTINGS) and name != _OF_A_PERSON
    return bool(_SECRET.search(name)) and not is_setting


def _filled(value: str) -> str:
    return os.environ[value[1:]] if re.fullmatch(r"\$\w+", value) else value

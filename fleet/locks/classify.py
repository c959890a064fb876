"""The class of an operation, read or write: as configured, otherwise by its name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, cast

from fleet.errors import ConfigError

OperationClass = Literal["read", "write"]

_CLASSES = ("read", "write")
_READS = ("read_", "get_", "list_")


class OperationClassifier:
    """Raises ConfigError when built from a map that names any other class than read and write.

    `key` is where the map stands in the configuration, for that sentence.
    """

    def __init__(self, classes: Mapping[str, str] | None = None, key: str = "classes") -> None:
        for name, value in (classes or {}).items():
            if value not in _CLASSES:
                raise ConfigError(f"{key}.{name}: {value!r} is not a class: use read or write.")
        self._classes = MappingProxyType(dict(classes or {}))

    def classify(self, name: str) -> OperationClass:
        """The configured class of `name`; otherwise read when its name begins so, else write.

        `get_or_create_user` writes: its name also says that it may create.
        """
        configured = self._classes.get(name)
        if configured is not None:
            return cast("OperationClass", configured)
        return "read" if name.startswith(_READS) and "_or_" not in name else "write"

"""The version of this installation."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("agent-fleet")
except PackageNotFoundError:
    VERSION = "0+source"

"""Tools that a model may call, and the interface of every set of tools."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fleet.locks import OperationClassifier
from fleet.tools.functions import Spec


class Toolbox(Protocol):
    """A set of tools under one name of the configuration."""

    @property
    def specs(self) -> Sequence[Spec]:
        """The tools to call."""
        ...

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The answer of one tool, by its own name, as text for the model.

        Runs in a thread of its own, perhaps beside other calls. The model gets every error.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool with its set's terms."""

    set_name: str
    box: Toolbox
    spec: Spec
    #: Reads run side by side, a write alone.
    writes: bool
    timeout_s: float
    max_result_bytes: int


def tools_of(
    set_name: str,
    box: Toolbox,
    classes: OperationClassifier,
    timeout_s: float,
    max_result_bytes: int,
) -> list[Tool]:
    """Every tool of a set, under the same terms."""
    return [
        Tool(
            set_name=set_name,
            box=box,
            spec=spec,
            writes=classes.classify(spec.own_name) == "write",
            timeout_s=timeout_s,
            max_result_bytes=max_result_bytes,
        )
        for spec in box.specs
    ]

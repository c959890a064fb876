"""What a model may call, and what every set of tools must answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fleet.locks import OperationClassifier
from fleet.tools.functions import Spec


class Toolbox(Protocol):
    """A set of tools under one name of the configuration."""

    @property
    def specs(self) -> Sequence[Spec]:
        """What there is to call."""
        ...

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The answer of one tool, by the name of its own, as text for the model.

        Runs in a thread of its own, perhaps beside others. Whatever it raises is told to the model.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool with its set's terms."""

    set_name: str
    box: Toolbox
    spec: Spec
    #: Reads run beside each other, a write alone.
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

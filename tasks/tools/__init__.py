"""The tools of an agent's model, and the answers to the calls of one message.

Each call, even a refused one, is a journalled step of the turn. So a turn that was killed finds
every finished call again and runs none twice. The model gets every error of a call in the message
that answers the call.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from fleet import runtime
from fleet.config.agents import OWN_TOOLS
from fleet.config.tools import ToolsConfig as Terms
from fleet.formats import strict_json
from fleet.ledger import Failure, FailureStage
from fleet.locks import OperationClassifier
from fleet.tools.fleet_tools import CLASSES
from fleet.tools.functions import FunctionToolbox, ToolError
from fleet.tools.mcp.names import NAME
from fleet.turn.turn import Turn, TurnFailed
from tasks.imports import imported
from tasks.tools import calls
from tasks.tools.calls import Job
from tasks.tools.queue import QueueToolbox
from tasks.tools.servers import CALL_MARGIN_S, ServerToolbox
from tasks.tools.toolbox import Tool, tools_of

#: Calls of one message; further calls are answered with an error.
CALLS_MAX = 32
#: All results of a turn together; a model could not read more, and the journal stores them.
TURN_BYTES_MAX = 4 << 20

Message = dict[str, Any]


class Toolset:
    """All tools of one turn."""

    def __init__(self, turn: Turn, tools: Iterable[Tool]) -> None:
        """Raises TurnFailed when two tools have the same name."""
        self._turn, self._left = turn, TURN_BYTES_MAX
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            other = self._tools.setdefault(tool.spec.name, tool)
            if other is not tool:
                raise _misconfigured(_twice(tool, other))

    @classmethod
    def of(cls, turn: Turn) -> "Toolset":
        """The tools in the configuration of the turn's agent.

        Raises TurnFailed for a wrong configuration, and for a server that is not available.
        """
        configured = runtime.current().settings.tools
        # All servers start at once; each may take seconds.
        servers = {
            name: ServerToolbox(turn, name, configured[name])
            for name in turn.agent.tools
            if name != OWN_TOOLS and configured[name].is_server
        }
        found: list[Tool] = []
        for name in turn.agent.tools:
            if name == OWN_TOOLS:
                found += _own(turn)
            elif name in servers:
                found += _served(name, servers[name], configured[name])
            else:
                found += _configured(name, configured[name])
        return cls(turn, found)

    @property
    def specs(self) -> list[dict[str, Any]]:
        """The tools' descriptions for the model; empty where the agent has none."""
        return [tool.spec.wire() for tool in self._tools.values()]

    def answer(self, asked: Sequence[Mapping[str, Any]]) -> list[Message]:
        """The messages that answer a model's calls, one for each call in order."""
        jobs = [self._job(call) for call in asked[:CALLS_MAX]]
        texts: list[str] = []
        for group in calls.groups(jobs):
            requests = [_request(call) for call in asked[len(texts) : len(texts) + len(group)]]
            wanted = [(job.name, request) for job, request in zip(group, requests, strict=True)]
            texts += self._turn.step_many(wanted, partial(_run, group))
        self._left -= sum(len(text.encode()) for text in texts)
        texts += [
            calls.error_text(f"only {CALLS_MAX} calls of a message are answered: ask again")
        ] * (len(asked) - len(texts))
        return [_message(call, text) for call, text in zip(asked, texts, strict=True)]

    def _job(self, call: Mapping[str, Any]) -> Job:
        name, arguments = _request(call)
        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(self._tools)
            return _refused(f"there is no tool {name[:64]!r}; there are {known}")
        if self._left <= 0:
            return _refused("this turn has had all the results it may: answer now")
        try:
            given = strict_json.parse(arguments or "{}")
        except ValueError:
            return _refused(f"the arguments of {name} are not valid JSON")
        if not isinstance(given, dict):
            return _refused(f"the arguments of {name} must be a JSON object")
        return Job(
            name=f"tool {name}",
            writes=tool.writes,
            timeout_s=tool.timeout_s,
            max_result_bytes=tool.max_result_bytes,
            call=partial(tool.box.call, tool.spec.own_name, given),
        )


def portable(message: Message) -> Message:
    """A model's message with calls, in a form that any provider accepts back.

    Some reject arguments that are not JSON, names that they would not have sent, or a missing id.
    """
    return {**message, "tool_calls": list(map(_plain, message["tool_calls"]))}


def numbered(asked: Sequence[Mapping[str, Any]], first: int) -> list[dict[str, Any]]:
    """The calls, each with an id; calls without an id are numbered from `first`."""
    return [
        {**call, "id": call.get("id") or f"call_{first + place}"}
        for place, call in enumerate(asked)
    ]


def declined(asked: Sequence[Mapping[str, Any]], why: str) -> list[Message]:
    """Messages that answer each call with the reason why it is not run."""
    return [_message(call, calls.error_text(why)) for call in asked]


def _own(turn: Turn) -> list[Tool]:
    terms = Terms.model_fields
    return tools_of(
        OWN_TOOLS,
        QueueToolbox(turn),
        OperationClassifier(CLASSES),
        terms["timeout_s"].default,
        terms["max_result_bytes"].default,
    )


def _configured(name: str, terms: Terms) -> list[Tool]:
    try:
        box = _functions(str(terms.python))
    except ValueError as error:
        raise _misconfigured(f"tools.{name}.python: {terms.python} {error}") from error
    return tools_of(name, box, _classes(name, terms), terms.timeout_s, terms.max_result_bytes)


def _served(name: str, box: ServerToolbox, terms: Terms) -> list[Tool]:
    box.ready()
    # It keeps its timeout itself, so no call of it is ever abandoned.
    limit_s = terms.timeout_s + 2 * CALL_MARGIN_S
    return tools_of(name, box, _classes(name, terms), limit_s, terms.max_result_bytes)


def _classes(name: str, terms: Terms) -> OperationClassifier:
    return OperationClassifier(terms.classes, f"tools.{name}.classes")


@cache
def _functions(path: str) -> FunctionToolbox:
    """The functions, loaded once in a process: their schemas take longer than most calls."""
    return FunctionToolbox(imported(path))


def _twice(tool: Tool, other: Tool) -> str:
    name = tool.spec.name
    if tool.set_name == other.set_name:
        return f"tools.{tool.set_name}: two of its tools are named {name}"
    return (
        f"two of the agent's tools are named {name}, in tools.{other.set_name} and "
        f"tools.{tool.set_name}: remove one of these from the agent's `tools`"
    )


def _misconfigured(reason: str) -> TurnFailed:
    return TurnFailed(
        Failure(stage=FailureStage.TOOL, reason=reason, retryable=False, kind="ToolConfiguration")
    )


def _refused(sentence: str) -> Job:
    def call() -> str:
        raise ToolError(sentence)

    # It waits for nothing, and blocks no other call.
    return Job(name="tool refused", writes=False, timeout_s=30, max_result_bytes=4096, call=call)


def _run(group: Sequence[Job], places: Sequence[int]) -> Iterable[tuple[int, str]]:
    for place, text in calls.run([group[place] for place in places]):
        yield places[place], text


def _request(call: Mapping[str, Any]) -> tuple[str, str]:
    """The name and the arguments of a call, even of a malformed one."""
    function = call.get("function") or {}
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments if arguments is not None else {})
    return str(function.get("name") or ""), arguments


def _plain(call: Mapping[str, Any]) -> dict[str, Any]:
    name, arguments = _request(call)
    try:
        good = isinstance(strict_json.parse(arguments), dict)
    except ValueError:
        good = False
    function = {
        "name": name if NAME.match(name) else "unknown",
        "arguments": arguments if good else "{}",
    }
    return {"id": call["id"], "type": "function", "function": function}


def _message(call: Mapping[str, Any], text: str) -> Message:
    return {"role": "tool", "tool_call_id": call["id"], "content": text}

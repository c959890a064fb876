"""`reference/errors.md`: the tree of errors, exit codes, HTTP problem codes, failure stages."""

import ast
import inspect
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import fleet.api
from fleet import errors
from fleet.api.request.problems import Problem, as_problem
from fleet.errors import FleetError
from fleet.ledger import FailureStage
from tests.docs.markdown import code, document, table

#: Problem code -> its meaning; the codes and their statuses are found in the API's source.
PROBLEMS = {
    "ambiguous-id": "Several ids begin so; the sentence names candidates.",
    "bad-parameter": "A parameter or a header has a value that it cannot have.",
    "failed": "The fleet failed; the sentence says why.",
    "fault": "The API has a defect; its log has the traceback.",
    "foreign-host": "The `Host` is none of `api.allowed_hosts`, and no token protects the API.",
    "foreign-origin": "A page of another site sent the request.",
    "idempotency-conflict": "The sender has used this id for an event with other content.",
    "invalid-by": "`by` is not a name.",
    "invalid-event": "The event is malformed, or no route leads anywhere.",
    "invalid-token": "A token cannot be made so: its name, a scope or a limit.",
    "invalid-reason": "`reason` is missing or too long.",
    "media-type": "The body has a media type or an encoding that the API does not read.",
    "missing-scope": "The token does not have the scope that the sentence names.",
    "no-route": "There is nothing at this path; with 405, the path does not take this method.",
    "not-found": "No such event, dispatch or agent is known.",
    "no-answer": "A callback has neither a `text` nor an `error`; its turn waits on.",
    "not-acceptable": "The client takes no JSON, the form of the answer.",
    "not-json": "The body is not JSON.",
    "not-possible": "The state of the dispatch does not allow this.",
    "not-ready": "An event sent now would not be accepted.",
    "not-text": "The body of a callback is not UTF-8.",
    "rate-limit": "The token has sent too much; `Retry-After` says when to send again.",
    "refused": "A limit refuses the event; `Retry-After` says when to send it again.",
    "session-busy": "The session has a turn, and the agent's `on_busy` is `reject`.",
    "slow-body": "The body did not arrive in time.",
    "store-lost": "The store went back, and `fleet recover` has not been run yet.",
    "token-revoked": "The token was one of this fleet, and was revoked.",
    "token-in-url": "A token was sent in the URL, where logs would keep it.",
    "too-large": "The body, or an event of it, is too large.",
    "too-many-hops": "The event came through more turns of agents than `routes.max_hops`.",
    "unauthorized": "A valid token is needed.",
    "unavailable": "Nothing can accept or answer the request now.",
    "unknown-target": "There is no such agent, group or chain.",
}

#: Where an attempt failed, or a dispatch was given up.
STAGES = {
    FailureStage.ADMISSION: "A full agent dropped the dispatch for a newer one.",
    FailureStage.QUEUE: "What the store keeps of the dispatch cannot be read.",
    FailureStage.LOCK: "The agent's code could not get a lock in time, or lost it.",
    FailureStage.LLM: "A model call failed.",
    FailureStage.TOOL: "A tool, or the agent's own code, failed.",
    FailureStage.TIMEOUT: "The turn passed its soft or its hard limit.",
    FailureStage.WORKER_LOST: "The worker died during the turn.",
    FailureStage.BUDGET: "The agent's budget was used up until the deadline.",
    FailureStage.EXPIRED: "The deadline passed while the dispatch waited.",
}


def page() -> str:
    """The page."""
    return document(
        "Errors",
        "After reading this page you can tell the fleet's errors apart, and act on each.",
        "An error's text is one sentence: the key or the subject, the fault and the remedy. It "
        "never quotes content.",
        "## In Python",
        "`from fleet import ...` gives each of these.",
        f"```text\n{_tree()}\n```",
        table(("error", "meaning", "exit code", "HTTP"), _classes()),
        "## HTTP problem codes",
        "A refusal is a problem document after RFC 9457. Its `type` is `urn:fleet:problem:` and "
        "the code.",
        table(("code", "status", "meaning"), _problems()),
        "## Failure stages",
        "A failed attempt and a dead letter name one of these in `stage`; see "
        "[Dead letters](../operations/dead-letters.md).",
        table(("stage", "meaning"), ((code(stage), STAGES[stage]) for stage in FailureStage)),
    )


def _tree() -> str:
    return inspect.cleandoc(errors.__doc__ or "").partition("\n\n")[2]


def _classes() -> Iterator[tuple[str, str, str, str]]:
    own = (one for one in vars(errors).values() if inspect.isclass(one))
    for cls in (one for one in own if issubclass(one, FleetError)):
        problem = as_problem(cls("x"))
        wire = f"{int(problem.status)} {code(problem.code)}" if problem.code != "failed" else ""
        purpose = (cls.__doc__ or "").partition("\n")[0]
        yield code(cls.__name__), purpose, str(cls.exit_code), wire


def _problems() -> Iterator[tuple[str, str, str]]:
    found: dict[str, set[int]] = {}
    for path in sorted(Path(fleet.api.__file__).parent.rglob("*.py")):
        for name, status in _raised(ast.parse(path.read_bytes())):
            found.setdefault(name, set()).update(status)
    assert found.keys() == PROBLEMS.keys(), found.keys() ^ PROBLEMS.keys()
    for name, statuses in sorted(found.items()):
        yield code(name), ", ".join(map(str, sorted(statuses))), PROBLEMS[name]


def _raised(module: ast.Module) -> Iterator[tuple[str, list[int]]]:
    """The code and the status of each `Problem(status, code, ...)`.

    A status that is known at run time only is left out.
    """
    status = ""
    nodes = [node for node in ast.walk(module) if isinstance(node, ast.Assign | ast.Call)]
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
        if isinstance(node, ast.Assign):
            status = ast.unparse(node.value) if ast.unparse(node.targets[0]) == "status" else status
        elif ast.unparse(node.func) == Problem.__name__:
            first = ast.unparse(node.args[0])
            name = (status if first == "status" else first).removeprefix("HTTPStatus.")
            known = [int(HTTPStatus[name])] if name in HTTPStatus.__members__ else []
            if isinstance(node.args[1], ast.Constant):
                yield str(node.args[1].value), known

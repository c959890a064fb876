"""A fleet to look at: conversations, a chain that waits for a person, failures, costs.

The same scenes are in the console's tests and in the pictures of the documentation.
"""

import time
from pathlib import Path
from typing import Any

from fleet.ledger import Claim, Ending
from fleet.store import keys
from fleet.turn.turn import Turn
from tests.e2e.console import Backstage
from tests.fixtures.ledger import FOR_GOOD, OUTAGE
from tests.fixtures.valkey import Valkey

AGENTS = {
    "archie": 'model = "echo/brief"\ndescription = "Plans the work and says what comes next."\n'
    'tools = ["queue"]\nfallbacks = ["echo/slow-1"]\nbudget = { usd_per_day = 5.0 }\n',
    "gem": 'model = "echo/brief"\ndescription = "Reviews what others have written."\n'
    "budget = { usd_per_day = 2.0, tokens_per_day = 200000 }\n",
    "mini": 'model = "echo/brief"\ndescription = "Answers short questions quickly."\n'
    "retry = { backoff_s = 0 }\n",
    "scout": 'runner = "command"\ncommand = ["scout", "--api-key", "hunter2", "search"]\n'
    'description = "Looks things up."\nenv = { SCOUT_TOKEN = "hunter2" }\n',
}
CHAIN = """
[routes]
default = ["archie"]
groups = { reviewers = ["gem", "mini"] }
[chains.release]
stages = ["archie", "@reviewers", "human:ops"]
[lanes]
night = 1
"""
_PROMPT = "You are Archie, the architect."
_TOOLS = [{"type": "function", "function": {"name": "queue_stats", "parameters": {}}}]


def stage_of(folder: Path, valkey: Valkey) -> Backstage:
    """The fleet, of which nothing has happened yet."""
    return Backstage(folder, valkey, AGENTS, CHAIN)


def keep_well(stage: Backstage) -> None:
    """Report as workers and beat do, so that the fleet is healthy."""
    for agent in AGENTS:
        lease = stage.lease(agent)
        lease.renew(busy=False, consuming=True)
    now_s = stage.books.store.clock.now_ms() / 1000
    stage.books.store.client.hset(keys.BEAT, "reclaim", str(now_s))


def turn_of(stage: Backstage, claim: Claim) -> Turn:
    """The turn of a claim, as a worker would make it."""
    agent = stage.books.settings.agents[claim.agent]
    return Turn(claim, agent, time.monotonic() + 60, stage.books.ledger)


def model_step(turn: Turn, text: str, *, tokens: int = 900, calls: Any = None) -> None:
    """A journalled call of a model."""
    reply = {
        "text": text,
        "model": "anthropic/claude-sonnet-4-5",
        "tier": 1,
        "tokens_in": tokens,
        "tokens_out": tokens // 5,
        "usd": tokens * 6e-6,
        **({"tool_calls": calls} if calls else {}),
    }
    messages = [{"role": "system", "content": _PROMPT}, {"role": "user", "content": turn.text}]
    if turn.steps:
        messages.append({"role": "tool", "content": '{"queued": 2, "active": 1}'})
    request = {"model": "anthropic/claude-sonnet-4-5", "messages": messages, "tools": _TOOLS}
    turn.step("llm", request, lambda: reply)


def answer(stage: Backstage, claim: Claim, text: str, *, tokens: int = 900) -> None:
    """A turn that calls a model once, and ends."""
    turn = turn_of(stage, claim)
    model_step(turn, text, tokens=tokens)
    facts: dict[str, str | int | float] = {"model": "anthropic/claude-sonnet-4-5", "tier": 1}
    stage.books.ledger.commit(claim, Ending(answer=text, facts=facts))


def play(stage: Backstage) -> dict[str, str]:
    """All scenes; the ids of what they leave behind, by name."""
    left = {"conversation": _conversation(stage), "approval": _approval(stage)}
    left["dead"] = _failures(stage)
    left["running"] = _running(stage)
    for text in ("Compare the two drafts of the paper.", "Check the links of the release notes."):
        stage.books.accept("gem", text, session="paper", source="github")
    return left


def _conversation(stage: Backstage) -> str:
    said = (
        ("Which parts of the parser are slow?", "The tokenizer: 61 % of the time is in `peek`."),
        ("What would make it faster?", "Read by lines instead of by characters.\nAbout 4 times."),
        ("Write a plan for that.", "1. A line buffer.\n2. Positions from offsets.\n3. Measure."),
    )
    last = ""
    for text, reply in said:
        (last,) = stage.books.accept("archie", text, session="parser", source="chat")
        answer(stage, stage.run("archie", last), reply)
    for text in ("Is 8080 free on the build host?", "How many open issues are there?"):
        (quick,) = stage.books.accept("mini", text, source="cron")
        answer(stage, stage.run("mini", quick), "Yes." if "free" in text else "41.", tokens=90)
    return last


def _approval(stage: Backstage) -> str:
    text = "Release 2.4: the line buffer, the new positions, and the notes below.\nWho objects?"
    (first,) = stage.books.accept("chain:release", text, source="ci")
    plan = "The plan: tag v2.4, publish, watch the error rate for an hour.\nAPPROVE"
    answer(stage, stage.run("archie", first), plan)
    for agent, word in (("gem", "The notes are complete.\nAPPROVE"), ("mini", "Fine.\nAPPROVE")):
        answer(stage, stage.run_next(agent), word, tokens=300)
    (parked,) = [
        str(row["dispatch_id"])
        for row in stage.find(states=["parked"])
        if row["chain_stage"] == 3  # that of the person
    ]
    return parked


def _failures(stage: Backstage) -> str:
    dead = ""
    for text in ("Translate the manual.", "Summarise the incident of Monday.", "Draw the network."):
        (dead,) = stage.books.accept("scout", text, source="webhook")
        stage.books.fail(stage.run("scout", dead), FOR_GOOD)
    (later,) = stage.books.accept("scout", "Find the newest paper on leases.", source="webhook")
    stage.books.fail(stage.run("scout", later), OUTAGE)
    return dead


def _running(stage: Backstage) -> str:
    text = "How full are the queues, and what should wait?"
    (running,) = stage.books.accept("archie", text, session="operations", source="chat")
    turn = turn_of(stage, stage.run("archie", running))
    call = {"id": "1", "function": {"name": "queue_stats", "arguments": '{"agent": "archie"}'}}
    model_step(turn, "", calls=[call])
    turn.step("queue_stats", {"agent": "archie"}, lambda: {"queued": 2, "active": 1})
    return running

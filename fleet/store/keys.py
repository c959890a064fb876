"""Every key in the store, with its life. Lua builds the same names in `store/scripts/_lib.lua`.

| key                     | type   | holds                                   | life               |
|-------------------------|--------|-----------------------------------------|--------------------|
| fleet:epoch             | string | names the life of this data set         | permanent          |
| fleet:former            | hash   | epochs of the store before it went back | permanent          |
| fleet:clock             | hash   | the last looks at the server's clock    | permanent          |
| fleet:alive             | string | when the store was looked at last       | permanent          |
| fleet:lost              | hash   | why a store that went back stands still | until `recover`    |
| fleet:seq, fleet:rings  | string | counters: acceptances, wake-ups         | permanent          |
| fleet:counts            | hash   | `agent/state` -> number of dispatches   | permanent          |
| fleet:fences            | hash   | agent -> newest fencing token           | permanent          |
| fleet:turn_fence        | string | newest fence of any turn                | permanent          |
| fleet:totals            | hash   | `agent/measure` -> running totals       | permanent          |
| fleet:sums:<time>       | hash   | sums of a minute, or of a quarter hour  | hours, or 8 days   |
| fleet:spend:<day>       | hash   | `agent/measure` -> usd, tokens that day | 3 days             |
| fleet:bus               | stream | the bus                                 | trimmed            |
| fleet:index             | zset   | every kept dispatch by acceptance       | swept              |
| fleet:ids               | zset   | the same, to be found by a prefix       | swept              |
| fleet:event_ids         | zset   | ids and hashes of events, likewise      | swept              |
| fleet:ended, fleet:dead | zset   | ended ones and dead letters, by ending  | swept              |
| fleet:retry             | zset   | retrying ones by due time               | while live         |
| fleet:deadlines         | zset   | waiting ones by deadline                | while live         |
| fleet:quiet             | zset   | waiting for quiet, by when it is over   | while live         |
| fleet:deliveries        | zset   | open deliveries, by deadline            | while live         |
| fleet:deliveries:<name> | zset   | those of one receiver, by due time      | while live         |
| fleet:receivers         | zset   | receivers, by when one is due           | while live         |
| fleet:due:<agent>       | zset   | runnable ones by lane and age           | while live         |
| fleet:session:<hash>    | zset   | live dispatches of a session, in order  | while live         |
| fleet:sessions          | hash   | session -> dispatch whose turn runs     | while live         |
| fleet:history:<hash>    | list   | messages of a session (content)         | history_ttl_s      |
| fleet:agent:<agent>     | hash   | active dispatch, paused, what stops it  | permanent          |
| fleet:lease:<agent>     | hash   | holder, fence, since, until             | a day after it     |
| fleet:pools             | hash   | agent -> turns at once, weight, pool    | permanent          |
| fleet:pool:<pool>       | hash   | its workers: processes, until, since    | permanent          |
| fleet:ready:<pool>      | zset   | agents that may begin a turn, in line   | while live         |
| fleet:served            | hash   | pool -> place of the agent served last  | permanent          |
| fleet:rests             | zset   | agents of pools that rest, until when   | while live         |
| fleet:running:<agent>   | set    | dispatches whose turns a pool runs      | while live         |
| fleet:turns             | zset   | the same of all agents, by lease's end  | while live         |
| fleet:claim:<lease>     | string | what a pool's worker has just claimed   | 60 s               |
| fleet:orders:<agent>    | list   | commands to the worker that runs turns  | 10 s               |
| fleet:dispatch:<id>     | hash   | the record; no content                  | retention          |
| fleet:journal:<id>      | hash   | finished steps (content)                | as the record      |
| fleet:failures:<id>     | list   | why its last attempts failed (content)  | as the record      |
| fleet:outcome:<id>      | string | the answer (content)                    | as the record      |
| fleet:callback:<id>     | hash   | what a service called back (content)    | as the record      |
| fleet:called:<id>       | list   | wakes the turn that waits for that      | 10 s               |
| fleet:delivery:<id>     | hash   | receivers of an outcome, confirmations  | as the record      |
| fleet:target:<name>     | hash   | how a receiver does, who sends to it    | a day              |
| fleet:speech:<id>       | stream | the live text of a turn (content)       | minutes            |
| fleet:event:<hash>      | hash   | parent of its dispatches: ids, outcomes | after the last end |
| fleet:payload:<hash>    | string | the event itself (content)              | as its event       |
| fleet:chain:<id>        | hash   | where a chain is; its plan and votes    | as its event       |
| fleet:trail:<id>        | hash   | what its stages ended with (content)    | as its event       |
| fleet:alerted:<name>    | string | an alert was given lately               | 60 s, or a day     |
| fleet:providers         | hash   | breakers of models, and of keys at them | a day              |
| fleet:asked:<caller>    | string | dispatches asked for by tools lately    | 60 s               |
| fleet:memory            | hash   | memory the server had and used lately   | permanent          |
| fleet:back              | string | when the fleet came back, or `recover`  | a day              |
| fleet:sender:<hash>     | string | events of one sender in this minute     | 60 s               |
| fleet:alerts            | hash   | what is wrong, and whether it was told  | a day              |
| fleet:alerts:cursor     | string | place on the bus, up to which was told  | a day              |
| fleet:alerts:looked     | string | when was compared last                  | a day              |
| fleet:alerts:past       | list   | alerts that are over                    | a week             |
| fleet:alerts:silences   | hash   | alerts that are sent to nobody          | until the last one |
| fleet:starting          | hash   | agents that are being started           | 10 minutes         |
| fleet:refusing          | hash   | what Celery's way in refused lately     | 30 s               |
| fleet:alerts:outbox     | list   | messages that wait to be sent           | a day              |
| fleet:alerts:sending    | string | a message is being sent                 | 20 s               |
| fleet:alerts:rate       | string | messages in this minute                 | 60 s               |
| fleet:alerts:suppressed | string | messages that were too many             | a day              |
| fleet:breaker:<opening> | string | an opening of a breaker was told        | an hour            |
| fleet:rang:<agent>      | string | beat asked to publish a wake-up lately  | 5 s                |
| fleet:upstream:<hash>   | hash   | place in a gateway's events             | permanent          |
| fleet:upstream_mode     | string | how the gateway's events come in        | 15 s               |
| fleet:turn:<job>        | string | a periodic job ran lately               | one period         |
| fleet:ready             | string | a process tried to write lately         | 60 s               |
| fleet:failing           | hash   | processes of a host that keep ending    | 2 minutes          |
| fleet:beat              | hash   | last tick of each periodic job          | permanent          |
| fleet:lock:token        | string | newest fencing token of any lock        | permanent          |
| fleet:lock:holds:<lock> | hash   | who holds a lock, each until when       | a day after it     |
| fleet:lock:line:<lock>  | zset   | who waits for it, in order              | 10 s               |
| fleet:lock:ticket:<id>  | string | a waiter was heard of, or gave up       | seconds            |
| fleet:lock:wake:<id>    | list   | wakes a waiter                          | 1 s                |
| fleet:tokens            | hash   | API tokens, hashed                      | permanent          |
| fleet:access_news       | stream | which tokens were created or revoked    | trimmed            |
| fleet:ticket:<hash>     | string | the token that a ticket stands for      | 30 s               |
| agent.<agent>           | list   | Celery's queue of wake-ups              | Celery's           |
| pool.<pool>             | list   | the same of a pool                      | Celery's           |
"""

import hashlib
import uuid

EPOCH = "fleet:epoch"
CLOCK = "fleet:clock"
LOST = "fleet:lost"
COUNTS = "fleet:counts"
BUS = "fleet:bus"
INDEX = "fleet:index"
IDS = "fleet:ids"
EVENT_IDS = "fleet:event_ids"
ENDED = "fleet:ended"
DEAD = "fleet:dead"
QUIET = "fleet:quiet"
BEAT = "fleet:beat"
READY = "fleet:ready"
FAILING = "fleet:failing"
POOLS = "fleet:pools"
PROVIDERS = "fleet:providers"
UPSTREAM_MODE = "fleet:upstream_mode"
ALERTS = "fleet:alerts"
ALERTS_CURSOR = "fleet:alerts:cursor"
ALERTS_PAST = "fleet:alerts:past"
ALERTS_SILENCES = "fleet:alerts:silences"
STARTING = "fleet:starting"
REFUSING = "fleet:refusing"
FORMER = "fleet:former"
TOKENS = "fleet:tokens"
ACCESS_NEWS = "fleet:access_news"

#: Names the dispatches of this project: the same event and agent give the same id, everywhere.
_NAMESPACE = uuid.UUID("5d0b7b4e-3c1a-5f57-9f0e-6a1c7e9c2f11").bytes


def spend(day: int) -> str:
    """The costs of the agents on one day, counted from 1970 in UTC."""
    return f"fleet:spend:{day}"


def sums(size_s: int, number: int) -> str:
    """The sums of a minute or a quarter of an hour, counted from 1970."""
    return f"fleet:sums:{size_s}:{number}"


def due(agent: str) -> str:
    """The runnable dispatches of one agent."""
    return f"fleet:due:{agent}"


def agent(name: str) -> str:
    """The present state of one agent."""
    return f"fleet:agent:{name}"


def lease(agent: str) -> str:
    """The lease of one agent."""
    return f"fleet:lease:{agent}"


def commands(worker: str) -> str:
    """Commands to the worker that holds an agent, by its name, or to a pool's, by its own."""
    return f"fleet:orders:{worker}"


def pool(name: str) -> str:
    """The workers of one pool."""
    return f"fleet:pool:{name}"


def running(agent: str) -> str:
    """The dispatches of one agent whose turns a pool runs."""
    return f"fleet:running:{agent}"


def turn(job: str) -> str:
    """A periodic job ran lately."""
    return f"fleet:turn:{job}"


def upstream(digest: str) -> str:
    """The place in the events of one gateway."""
    return f"fleet:upstream:{digest}"


def dispatch(dispatch_id: str) -> str:
    """The record of one dispatch."""
    return f"fleet:dispatch:{dispatch_id}"


def failures(dispatch_id: str) -> str:
    """Why the last attempts of one dispatch failed."""
    return f"fleet:failures:{dispatch_id}"


def journal(dispatch_id: str) -> str:
    """The finished steps of one dispatch."""
    return f"fleet:journal:{dispatch_id}"


def outcome(dispatch_id: str) -> str:
    """The answer of one dispatch."""
    return f"fleet:outcome:{dispatch_id}"


def called(dispatch_id: str) -> str:
    """The list on which a turn waits for what a service calls back."""
    return f"fleet:called:{dispatch_id}"


def delivery(dispatch_id: str) -> str:
    """The receivers of the outcome of one dispatch, and their confirmations."""
    return f"fleet:delivery:{dispatch_id}"


def target(name: str) -> str:
    """The state of one receiver."""
    return f"fleet:target:{name}"


def speech(dispatch_id: str) -> str:
    """The live text of one dispatch's turn."""
    return f"fleet:speech:{dispatch_id}"


def event(digest: str) -> str:
    """The ids of one event's dispatches."""
    return f"fleet:event:{digest}"


def payload(digest: str) -> str:
    """The event itself."""
    return f"fleet:payload:{digest}"


def chain(chain_id: str) -> str:
    """The state of one chain."""
    return f"fleet:chain:{chain_id}"


def trail(chain_id: str) -> str:
    """The ends of the stages of one chain."""
    return f"fleet:trail:{chain_id}"


def queue(agent: str) -> str:
    """Celery's queue of one agent; also its Redis list."""
    return f"agent.{agent}"


def lock_name(kind: str, of: str) -> str:
    """The name of a lock, whatever characters the session or turn it is `of` holds."""
    return f"{kind}:{event_digest(of)}"


def lock_wake(hold_id: str) -> str:
    """The list on which a waiter blocks."""
    return f"fleet:lock:wake:{hold_id}"


def event_digest(event_key: str) -> str:
    """A fixed-length name for an event's key, whatever characters it holds."""
    return hashlib.sha256(event_key.encode()).hexdigest()[:40]


def dispatch_id(event_key: str, agent_name: str) -> str:
    """The id of one event's dispatch to one agent: a repeated event gives it again."""
    return _uuid5(f"{event_key}\n{agent_name}")


def chain_id(event_key: str, chain: str) -> str:
    """The id of one event's run through a chain."""
    return _uuid5(f"{event_key}\nchain:{chain}")


def stage_dispatch_id(event_key: str, chain: str, stage: int, round_: int, agent_name: str) -> str:
    """The id of a stage's dispatch, stages and rounds counted from 1; `_chain.lua` makes it too."""
    return _uuid5(f"{event_key}\nchain:{chain}\n{stage}\n{round_}\n{agent_name}")


def _uuid5(name: str) -> str:
    """The text of `uuid.uuid5(_NAMESPACE, name)`, a third of the time."""
    digest = bytearray(hashlib.sha1(_NAMESPACE + name.encode()).digest()[:16])  # noqa: S324 - as the standard says
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

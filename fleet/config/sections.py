"""The sections of `fleet.toml`, one frozen model each; unknown keys are errors."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from fleet.config.fields import Count as Count
from fleet.config.fields import Priority as Priority
from fleet.config.fields import Seconds as Seconds
from fleet.config.fields import number as number
from fleet.config.terminal import TerminalConfig
from fleet.formats.webhook_signature import check_secret
from routing import Rule
from routing.event import HOPS_MAX
from routing.rules import MAX_HOPS_DEFAULT

#: The tool set that the fleet brings along.
OWN_TOOLS = "queue"
#: The built-in runners.
RUNNERS = ("llm", "python", "http", "command", "pty")


def is_url(text: str) -> bool:
    """True for an address that HTTP can be spoken to."""
    place = urlsplit(text)
    return place.scheme in ("http", "https") and bool(place.hostname)


class ConfigTable(BaseModel):
    """Frozen, closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RetentionConfig(ConfigTable):
    """How long ended dispatches are kept: whichever bound is met first."""

    completed_s: Seconds = 7 * 86400
    dead_s: Seconds = 30 * 86400
    max: Count = 10_000


class RetryConfig(ConfigTable):
    """When a failed attempt is tried again, and when a dispatch is given up."""

    attempts: Annotated[int, BeforeValidator(number), Field(ge=1, le=1000)] = 3
    #: The first wait; it doubles with each attempt, and the actual wait is a random part of it.
    backoff_s: Annotated[float, BeforeValidator(number), Field(ge=0, le=86400)] = 30.0
    #: Given up only when also this old: a short outage must not fill the dead letters.
    min_age_s: Annotated[float, BeforeValidator(number), Field(ge=0, le=30 * 86400)] = 600.0
    deadline_s: Seconds = 86400.0


class BudgetConfig(ConfigTable):
    """What an agent may spend in a day."""

    usd_per_day: Annotated[float, Field(gt=0)] | None = None
    tokens_per_day: Count | None = None


class AgentConfig(ConfigTable):
    """One agent: its runner and its limits."""

    #: A built-in one, or the name of an entry point in the group `fleet.runners`.
    runner: str = "llm"
    #: LiteLLM's name of the model, `provider/model`; needed by the `llm` runner.
    model: str | None = None
    fallbacks: tuple[str, ...] = ()
    instructions: str = ""
    #: Passed to every model call: `temperature`, `max_tokens`, `api_base`, `api_key` ...
    params: dict[str, Any] = {}
    #: `package.module:callable`, for the `python` runner.
    python: str | None = None
    #: Program and arguments, for the runners `command` and `pty`; no shell reads them.
    command: tuple[str, ...] = ()
    #: The folder that a command runs in; else the one that the fleet runs in.
    cwd: str | None = None
    #: Added to a command's environment.
    env: dict[str, str] = {}
    #: A command's standard error goes to the worker's log, whatever it repeats of the prompt.
    log_stderr: bool = False
    #: How the `pty` runner tells what its program is doing.
    terminal: TerminalConfig | None = None
    #: Where the `http` runner posts events, what it adds to each, and what signs them.
    url: str | None = None
    headers: dict[str, str] = {}
    secret: SecretStr | None = None
    #: The service may answer 202 and give its answer by a signed call of the fleet's API.
    callback: bool = False
    #: A command or a service that says more than this fails the turn.
    max_output_bytes: Annotated[int, BeforeValidator(number), Field(ge=1, le=64 << 20)] = 1 << 20
    timeout_s: Seconds | None = None
    #: One model call; never more than what is left of the turn.
    call_timeout_s: Seconds = 60.0
    max_pending: Count = 256
    overflow: Literal["reject", "drop_oldest"] = "reject"
    on_busy: Literal["enqueue", "reject", "interrupt", "coalesce"] = "enqueue"
    retry: RetryConfig = RetryConfig()
    budget: BudgetConfig = BudgetConfig()
    #: What its model may call: names of `[tools.NAME]`, or `queue`, the fleet's own.
    tools: tuple[str, ...] = ()
    #: Names of [deliveries.NAME] that its outcomes go to.
    deliver: tuple[str, ...] = ()
    #: So often may a turn's model ask for tools; then it must answer.
    max_tool_rounds: Annotated[int, BeforeValidator(number), Field(ge=1, le=1000)] = 16
    #: Whom its model may give work by `queue`; absent: every agent.
    dispatch_to: tuple[str, ...] | None = None
    #: So often may its model give work.
    dispatches_per_minute: Count = 10
    stream: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Self:
        has_all, fault = _NEEDS.get(self.runner, (bool, ""))
        if not has_all(self):
            raise ValueError(fault)
        for key, (runner, fault) in _USED_BY.items():
            if getattr(self, key) and self.runner in RUNNERS and self.runner != runner:
                raise ValueError(fault)
        if self.callback and (self.runner != "http" or self.secret is None):
            raise ValueError("has a callback, which needs the runner http and a `secret`")
        return self

    @field_validator("runner")
    @classmethod
    def _is_installed(cls, value: str) -> str:
        if value not in RUNNERS and not entry_points(group="fleet.runners", name=value):
            raise ValueError(f"{value!r} is not installed; built in are {', '.join(RUNNERS)}")
        return value

    @field_validator("secret")
    @classmethod
    def _is_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_secret(value.get_secret_value())
        return value


_PROGRAM = (
    lambda agent: bool(agent.command and agent.command[0]),
    'has no program: set `command = ["program", "argument"]`',
)
#: What an agent's table must have for each built-in runner.
_NEEDS: dict[str, tuple[Callable[[AgentConfig], bool], str]] = {
    "llm": (lambda agent: bool(agent.model), 'has no model: set `model = "provider/name"`'),
    "python": (
        lambda agent: ":" in (agent.python or ""),
        'has no callable: set `python = "package.module:callable"`',
    ),
    "command": _PROGRAM,
    "pty": _PROGRAM,
    "http": (lambda agent: is_url(agent.url or ""), 'has no address: set `url = "https://..."`'),
}
#: Keys that one of the built-in runners alone uses.
_USED_BY = {
    "terminal": ("pty", "has a terminal, but only the runner pty uses one: take it out"),
    "tools": ("llm", "has tools, but only the runner llm calls them: take `tools` out"),
}


def one_or_more(value: Any) -> Any:
    """A single string stands for a list of it."""
    if not isinstance(value, str | list | tuple):
        raise ValueError("must be a string or a list of strings")
    return (value,) if isinstance(value, str) else value


def array(value: Any) -> Any:
    """TOML's array of tables."""
    if not isinstance(value, list | tuple):
        raise ValueError("must be an array of tables, written [[routes.rules]]")
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(one_or_more)]


class RouteRuleConfig(ConfigTable):
    """Where an event goes that meets every condition given; see `routing.rule`."""

    name: str
    to: Names
    #: Each a glob or a list of globs.
    type: Names | None = None
    source: Names | None = None
    subject: Names | None = None
    #: Dotted path into the event's data -> a value or a list of values.
    data: dict[str, Any] = {}

    def rule(self) -> Rule:
        """As routing reads it. Raises InvalidRoute."""
        patterns = {"type": self.type, "source": self.source, "subject": self.subject}
        return Rule.checked(name=self.name, to=self.to, patterns=patterns, data=self.data)


class RoutesConfig(ConfigTable):
    """Where an event goes that names no agent, and who answers to a group's name."""

    default: tuple[str, ...] = ()
    mentions: bool = True
    groups: dict[str, tuple[str, ...]] = {}
    #: In order; for events that neither name a target nor mention anybody.
    rules: Annotated[tuple[RouteRuleConfig, ...], BeforeValidator(array)] = ()
    #: Whether the first rule that matches decides, or all that match together.
    match: Literal["first", "all"] = "first"
    #: An event that came through more turns of agents than this is refused.
    max_hops: Annotated[int, BeforeValidator(number), Field(ge=0, le=HOPS_MAX)] = MAX_HOPS_DEFAULT
    #: When one dispatch of an event is dead: whether the others go on or are cancelled.
    on_member_failure: Literal["continue", "cancel"] = "continue"


class ChainStageConfig(ConfigTable):
    """One stage; in the file also just the `agent` as a string."""

    #: An agent's name, `@group`, `all` or `human:NAME`.
    agent: str
    #: Approvals that let a group go on; absent: more than half of its members.
    quorum: Count | None = None
    #: The soft limit of this stage's turns; at most the agent's own.
    timeout_s: Seconds | None = None
    #: How long a person has to decide.
    deadline_s: Seconds | None = None


def _stage(value: Any) -> Any:
    return {"agent": value} if isinstance(value, str) else value


class ChainConfig(ConfigTable):
    """A governance chain: stages in order."""

    stages: tuple[Annotated[ChainStageConfig, BeforeValidator(_stage)], ...]
    on_reject: Literal["stop"] = "stop"
    on_failure: Literal["stop", "skip"] = "stop"
    #: What an agent's answer without a verdict counts as.
    on_silence: Literal["approve", "reject"] = "approve"
    #: How often a stage may send the work back, over the whole chain.
    max_revisions: Annotated[int, BeforeValidator(number), Field(ge=0, le=100)] = 3
    human_deadline_s: Seconds = 7 * 86400
    #: Names of [deliveries.NAME] that its end goes to; what its stages answer goes nowhere else.
    deliver: tuple[str, ...] = ()


class CapsConfig(ConfigTable):
    """What intake takes at most; the rest is refused, and the sender keeps it."""

    #: Dispatches of all agents together that wait.
    max_waiting: Count = 100_000
    #: Events of one `source`; none: no limit.
    sender_per_minute: Count | None = None
    #: The part of the store's `maxmemory` above which no event is accepted: room is needed to end
    #: what was accepted before.
    store_memory: Annotated[float, BeforeValidator(number), Field(gt=0, le=1)] = 0.9


class BusConfig(ConfigTable):
    """How much of the bus is kept, and what a slow client may cost."""

    max_length: Count = 10_000
    max_age_s: Seconds = 3600.0
    client_queue: Count = 256
    evict_after_failures: Count = 3
    #: One try to hand a client what it asked for.
    send_timeout_s: Annotated[float, BeforeValidator(number), Field(gt=0, le=60)] = 5.0


class BreakerConfig(ConfigTable):
    """The circuit breaker before the broker."""

    failure_threshold: Count = 5
    reset_timeout_s: Seconds = 30.0


class LocksConfig(ConfigTable):
    """The locks in front of tool servers that are passed on over `/mcp`; see `fleet.locks`."""

    session_ttl_s: Seconds = 60.0
    acquire_timeout_s: Seconds = 5.0
    on_store_down: Literal["closed", "open"] = "closed"


class SessionsConfig(ConfigTable):
    """What a session remembers, and how events become one turn under `on_busy = "coalesce"`."""

    #: 0: nothing is kept and nothing handed to a turn.
    history_messages: Annotated[int, BeforeValidator(number), Field(ge=0, le=1000)] = 40
    history_tokens: Annotated[int, BeforeValidator(number), Field(ge=1, le=1_000_000)] = 16_000
    #: After the session's last turn.
    history_ttl_s: Seconds = 7 * 86400.0
    #: So long must nothing more come before the turn may start.
    coalesce_window_s: Seconds = 1.0
    #: The first message of a turn never waits longer for quiet.
    coalesce_max_s: Seconds = 10.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.coalesce_max_s < self.coalesce_window_s:
            raise ValueError("coalesce_max_s must be at least coalesce_window_s")
        return self


class AlertsConfig(ConfigTable):
    """Where alerts go besides the bus."""

    #: Discord, Slack or plain JSON, told apart by its shape.
    webhook: SecretStr | None = None

    @field_validator("webhook")
    @classmethod
    def _is_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        if not is_url(value.get_secret_value()):
            raise ValueError("must be a URL that begins with https:// or http://")
        return value


class FlowerConfig(ConfigTable):
    """Flower, always on loopback and read-only; port 0 takes a free one."""

    enabled: bool = True
    port: Annotated[int, BeforeValidator(number), Field(ge=0, le=65535)] = 5555

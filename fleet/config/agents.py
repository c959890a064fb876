"""`[agents.NAME]` of `fleet.toml`: one agent."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from fleet.config.fields import ConfigTable, Count, Seconds, is_url, number
from fleet.config.terminal import TerminalConfig
from fleet.formats.webhook_signature import check_secret

#: The tool set that the fleet brings along.
OWN_TOOLS = "queue"
#: The built-in runners.
RUNNERS = ("llm", "python", "http", "command", "pty")


class RetryConfig(ConfigTable):
    """Retries of a failed attempt, and the end of them."""

    attempts: Annotated[int, BeforeValidator(number), Field(ge=1, le=1000)] = Field(
        default=3, description="Fewest attempts before a dispatch is given up."
    )
    backoff_s: Annotated[float, BeforeValidator(number), Field(ge=0, le=86400)] = Field(
        default=30.0,
        description="First wait before a retry; each next one is twice as long, with jitter.",
    )
    #: A short outage must not fill the dead letters.
    min_age_s: Annotated[float, BeforeValidator(number), Field(ge=0, le=30 * 86400)] = Field(
        default=600.0, description="A dispatch is given up only when it is also this old."
    )
    deadline_s: Seconds = Field(
        default=86400.0, description="A dispatch older than this is given up in any case."
    )


class BudgetConfig(ConfigTable):
    """Limits on an agent's spending in a day."""

    usd_per_day: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="US dollars for model calls in a day, UTC."
    )
    tokens_per_day: Count | None = Field(
        default=None, description="Tokens of model calls in a day, UTC."
    )

    @property
    def is_set(self) -> bool:
        """True where anything is limited."""
        return self.usd_per_day is not None or self.tokens_per_day is not None


class ModelTier(ConfigTable):
    """A model to try next, with what its calls need."""

    model: str = Field(description="LiteLLM's `provider/model`.")
    params: dict[str, Any] = Field(
        default={},
        description="Passed to its calls, on top of what it may have of the agent's `params`.",
    )
    trust_done: bool | None = Field(
        default=None, description="As the agent's `trust_done`, which holds without this."
    )


def _tier(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


class AgentConfig(ConfigTable):
    """One agent: its runner and its limits."""

    description: Annotated[str, Field(max_length=500)] = Field(
        default="", description="What it is for, in a sentence, shown to those who may see it."
    )
    runner: str = Field(
        default="llm",
        description="`llm`, `python`, `command`, `pty`, `http`, or an entry point in the group "
        "`fleet.runners`.",
    )
    model: str | None = Field(
        default=None,
        description="LiteLLM's `provider/model`, needed by the runner `llm`; `echo/brief`, "
        "`echo/slow-2` and `echo/hang` need no provider.",
    )
    fallbacks: tuple[Annotated[ModelTier, BeforeValidator(_tier)], ...] = Field(
        default=(), description="Models to try next, in order: their names, or these tables."
    )
    instructions: str = Field(default="", description="The system message.")
    params: dict[str, Any] = Field(
        default={},
        description="Passed to each model call: `temperature`, `max_tokens`, `api_base` ... "
        "A fallback of another provider gets no address and no key of these.",
    )
    python: str | None = Field(
        default=None,
        description="The callable as `package.module:callable`, needed by the runner `python`.",
    )
    command: tuple[str, ...] = Field(
        default=(),
        description="Program and arguments, needed by the runners `command` and `pty`; no shell "
        "reads them.",
    )
    cwd: str | None = Field(
        default=None,
        description="The folder that a command runs in; without it, the folder of the fleet.",
    )
    env: dict[str, str] = Field(
        default={},
        description="Added to a command's environment; `$NAME` is the worker's own variable.",
    )
    log_stderr: bool = Field(
        default=False,
        description="Write a command's standard error, which may quote prompts, to the worker's "
        "log.",
    )
    terminal: TerminalConfig | None = Field(
        default=None, description="How the runner `pty` tells what its program is doing."
    )
    url: str | None = Field(
        default=None, description="Where events are posted, needed by the runner `http`."
    )
    headers: dict[str, str] = Field(
        default={}, description="Headers added to each request of the runner `http`."
    )
    secret: SecretStr | None = Field(
        default=None,
        description="Signs what is posted, and verifies what is called back, after Standard "
        "Webhooks.",
    )
    callback: bool = Field(
        default=False,
        description="The service may reply 202 and call its answer back within the turn's limit.",
    )
    max_output_bytes: Annotated[int, BeforeValidator(number), Field(ge=1, le=64 << 20)] = Field(
        default=1 << 20, description="Longer output of a command or a service fails the turn."
    )
    pool: str | None = Field(
        default=None,
        description="The pool whose workers run its turns: a name of `[pools.NAME]`; without it, a "
        "worker of its own.",
    )
    parallel: Annotated[int, BeforeValidator(number), Field(ge=1, le=100_000)] = Field(
        default=1, description="Most turns at once, one for each session; above 1 in a pool only."
    )
    weight: Annotated[float, BeforeValidator(number), Field(ge=0.001, le=1000)] = Field(
        default=1.0,
        description="Its share of the pool's turns where more agents wait than it has processes.",
    )
    timeout_s: Seconds | None = Field(
        default=None,
        description="The soft limit of a turn; without it, `fleet.dispatch_timeout_s`.",
    )
    call_timeout_s: Seconds = Field(
        default=60.0,
        description="The limit of one model call; less where fallbacks would get no time in the "
        "turn.",
    )
    max_pending: Count = Field(
        default=256, description="Most waiting events; `overflow` says what happens to the next."
    )
    overflow: Literal["reject", "drop_oldest"] = Field(
        default="reject",
        description="A full agent refuses the new event, or drops the oldest of those not more "
        "urgent.",
    )
    on_busy: Literal["enqueue", "reject", "interrupt", "coalesce"] = Field(
        default="enqueue", description="What happens to an event whose session has a turn already."
    )
    retry: RetryConfig = Field(
        default=RetryConfig(), description="When to try again, and when to give up."
    )
    budget: BudgetConfig = Field(
        default=BudgetConfig(),
        description="Spending in a day; when it is used up, dispatches wait for the next day.",
    )
    tools: tuple[str, ...] = Field(
        default=(),
        description="What the model may call: names of `[tools.NAME]`, and `queue`, the fleet's "
        "own set.",
    )
    deliver: tuple[str, ...] = Field(
        default=(),
        description="Receivers of its outcomes: names of `[deliveries.NAME]`.",
    )
    max_tool_rounds: Annotated[int, BeforeValidator(number), Field(ge=1, le=1000)] = Field(
        default=16,
        description="Messages with tool calls in one turn; a model that goes on fails the turn.",
    )
    dispatch_to: tuple[str, ...] | None = Field(
        default=None,
        description="Agents that its model may give work by `queue`; without it, every agent.",
    )
    dispatches_per_minute: Count = Field(
        default=10, description="How often its model may give work by `queue`."
    )
    stream: bool = Field(
        default=False, description="Publish the text of a turn while it is being written."
    )
    trust_done: bool = Field(
        default=False,
        description="A stream that ends with `[DONE]` and no finish reason is an answer, where its "
        "text or JSON is whole; a warning is logged.",
    )
    allow_empty: bool = Field(
        default=False,
        description="Complete with an empty answer of a model; otherwise it is a failure.",
    )

    @property
    def models(self) -> tuple[str, ...]:
        """The models that a turn may call, in order; none of `python`, `command` and the like."""
        if not self.model or (self.runner in RUNNERS and self.runner != "llm"):
            return ()
        return (self.model, *(tier.model for tier in self.fallbacks))

    def _other_runner(self) -> str:
        """The fault of a model's agent that has what another runner needs, or an empty string."""
        for key, runner in _RUNNER_OF.items():
            if self.runner == "llm" and getattr(self, key):
                return f'has no model, but `{key}`: set `runner = "{runner}"`'
        return ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        has_all, fault = _NEEDS.get(self.runner, (bool, ""))
        if not has_all(self):
            raise ValueError(self._other_runner() or fault)
        for key, (runner, fault) in _USED_BY.items():
            if getattr(self, key) and self.runner in RUNNERS and self.runner != runner:
                raise ValueError(fault)
        for tier in self.fallbacks:
            if _lacks_key(tier):
                raise ValueError(
                    f"has the fallback {tier.model} at an address of its own, which must not get "
                    "a key of the environment: set `api_key` in its `params`, to any text where "
                    "none is asked for"
                )
        if self.pool is not None and self.runner == "pty":
            raise ValueError(
                "has a pool, but a terminal stays with one worker: take `pool` out, or use another "
                "runner"
            )
        if self.pool is None and (self.parallel > 1 or "weight" in self.model_fields_set):
            raise ValueError("has `parallel` or `weight`, which need a pool: set `pool`")
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


def _lacks_key(tier: ModelTier) -> bool:
    """True where LiteLLM would send a key of the environment to the tier's own address."""
    if not any(tier.params.get(name) for name in ("api_base", "base_url")):
        return False
    provider = tier.model.partition("/")[0]
    return provider not in ("ollama", "ollama_chat") and not any(
        "key" in name and value for name, value in tier.params.items()
    )


_PROGRAM = (
    lambda agent: bool(agent.command and agent.command[0]),
    'has no program: set `command = ["program", "argument"]`',
)
#: The needs of each built-in runner.
_NEEDS: dict[str, tuple[Callable[[AgentConfig], bool], str]] = {
    "llm": (lambda agent: bool(agent.model), 'has no model: set `model = "provider/name"`'),
    "python": (
        lambda agent: ":" in (agent.python or ""),
        'names no callable: set `python = "package.module:callable"`',
    ),
    "command": _PROGRAM,
    "pty": _PROGRAM,
    "http": (lambda agent: is_url(agent.url or ""), 'has no address: set `url = "https://..."`'),
}
#: A key of an agent without a model -> the runner that was meant.
_RUNNER_OF = {"command": "command", "python": "python", "url": "http"}
#: Keys that one of the built-in runners alone uses.
_USED_BY = {
    "terminal": ("pty", "has a terminal, but only the runner pty uses one: take it out"),
    "tools": ("llm", "has tools, but only the runner llm calls them: take `tools` out"),
}

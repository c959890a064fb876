"""`[routes]` and `[chains.NAME]` of `fleet.toml`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fleet.config.fields import ConfigTable, Count, Names, Seconds, array, number
from routing import Rule
from routing.event import HOPS_MAX
from routing.rules import MAX_HOPS_DEFAULT


class RouteRuleConfig(ConfigTable):
    """Targets of an event that meets every condition; see `routing.table`."""

    name: str = Field(description="The rule's name, which `fleet route` shows.")
    to: Names = Field(description="One target or a list of them.")
    type: Names | None = Field(default=None, description="Glob, or globs, of the event's `type`.")
    source: Names | None = Field(
        default=None, description="Glob, or globs, of the event's `source`."
    )
    subject: Names | None = Field(
        default=None, description="Glob, or globs, of the event's `subject`."
    )
    data: dict[str, Any] = Field(
        default={},
        description="Dotted path into the event's `data`, with a value or a list of values.",
    )

    def rule(self) -> Rule:
        """The rule as routing reads it. Raises InvalidRoute."""
        patterns = {"type": self.type, "source": self.source, "subject": self.subject}
        return Rule.checked(name=self.name, to=self.to, patterns=patterns, data=self.data)


class RoutesConfig(ConfigTable):
    """Targets of events that name no agent, and the members of each group."""

    default: tuple[str, ...] = Field(
        default=(), description="Targets of an event that names none and meets no rule."
    )
    mentions: bool = Field(default=True, description="Send `@gem ...` to gem.")
    groups: dict[str, tuple[str, ...]] = Field(
        default={}, description="Agents of each group; the target is `@` and the group's name."
    )
    rules: Annotated[tuple[RouteRuleConfig, ...], BeforeValidator(array)] = Field(
        default=(),
        description="Rules, in order, for events that name no target and mention nobody.",
    )
    match: Literal["first", "all"] = Field(
        default="first", description="The first rule that applies decides, or all that do."
    )
    max_hops: Annotated[int, BeforeValidator(number), Field(ge=0, le=HOPS_MAX)] = Field(
        default=MAX_HOPS_DEFAULT,
        description="An event that came through more turns of agents is refused.",
    )
    on_member_failure: Literal["continue", "cancel"] = Field(
        default="continue",
        description="When one dispatch of an event is dead, the others go on or are cancelled.",
    )


class ChainStageConfig(ConfigTable):
    """One stage; in the file also just the `agent` as a string."""

    agent: str = Field(description="An agent, `@group`, `all` or `human:NAME`.")
    quorum: Count | None = Field(
        default=None,
        description="Approvals that let a group go on; without it, more than half of its members.",
    )
    timeout_s: Seconds | None = Field(
        default=None, description="The soft limit of the stage's turns; at most the agent's own."
    )
    deadline_s: Seconds | None = Field(
        default=None,
        description="How long a person has to decide; without it, `human_deadline_s`.",
    )


def _stage(value: Any) -> Any:
    return {"agent": value} if isinstance(value, str) else value


class ChainConfig(ConfigTable):
    """A governance chain: stages in order."""

    stages: tuple[Annotated[ChainStageConfig, BeforeValidator(_stage)], ...] = Field(
        description="Stages in order: an agent, `@group` or `human:NAME` each, or a table."
    )
    on_reject: Literal["stop"] = Field(
        default="stop", description="A rejection ends the chain; other choices do not exist yet."
    )
    on_failure: Literal["stop", "skip"] = Field(
        default="stop",
        description="A failed stage ends the chain, or is skipped; a person is never skipped.",
    )
    on_silence: Literal["approve", "reject"] = Field(
        default="approve", description="How an answer without a verdict counts."
    )
    max_revisions: Annotated[int, BeforeValidator(number), Field(ge=0, le=100)] = Field(
        default=3,
        description="How often the stages together may send the work back; then the chain ends "
        "as rejected.",
    )
    human_deadline_s: Seconds = Field(
        default=7 * 86400, description="How long a person has to decide."
    )
    deliver: tuple[str, ...] = Field(
        default=(),
        description="Receivers of the chain's end, and of nothing before: names of "
        "`[deliveries.NAME]`.",
    )

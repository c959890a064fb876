"""The configuration: `fleet.toml`, overridden by `FLEET_...` in the environment, checked whole.

Read once per process with `load`; every mistake is a ConfigError that names the key. The shape of
the file, section by section, is in `fleet.config.sections`.
"""

import os
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from fleet.config import sections
from fleet.config.api import ApiConfig
from fleet.config.deliveries import UPSTREAM, DeliveryConfig
from fleet.config.foreign_environment import is_of_service, nearest
from fleet.config.mcp import McpConfig
from fleet.config.sections import (
    AgentConfig,
    AlertsConfig,
    BreakerConfig,
    BusConfig,
    CapsConfig,
    FlowerConfig,
    LocksConfig,
    Priority,
    RetentionConfig,
    RoutesConfig,
    Seconds,
    SessionsConfig,
    number,
)
from fleet.config.spool import SpoolConfig
from fleet.config.tools import ToolsConfig
from fleet.config.upstream import UpstreamConfig
from fleet.errors import ConfigError
from routing import Chain, InvalidRoute, Rules, StageRule, Verdict
from routing.event import LANES
from routing.targets import ALL_HANDS, Targets

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
#: Variables that are no settings: which file to read, what one process tells its children.
_NOT_SETTINGS = (
    "FLEET_CONFIG",
    "FLEET_REDIS_SERVER",
    "FLEET_LIFELINE_FD",
    "FLEET_MARK_",
    "FLEET_TEST_",
)
_SCHEMES = (
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "unix",
    "redis+socket",
    "sentinel",
    "amqp",
    "amqps",
)


class Settings(BaseSettings):
    """Everything an operator can set. Keys of the `[fleet]` table stand at the top level here."""

    model_config = SettingsConfigDict(
        env_prefix="FLEET_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    #: Absent: an embedded Valkey under `data_dir`, started by `fleet up`.
    broker_url: str | None = None
    #: Ledger, leases and bus; absent: the broker, where that is Redis or Valkey.
    store_url: str | None = None
    dispatch_timeout_s: Seconds = 120.0
    #: Celery's hard limit is this much above the soft one: time to end a turn in order.
    hard_limit_margin_s: Seconds = 30.0
    #: kombu redelivers an unacknowledged message after this; every hard limit must stay below it.
    visibility_timeout_s: Seconds = 3600.0
    data_dir: Path = Path(".fleet")
    durability: Literal["always", "everysec"] = "always"
    #: Of loopback, for programs that cannot use the embedded broker's socket; 0: none.
    broker_tcp: Annotated[int, BeforeValidator(number), Field(ge=0, le=65535)] = 0
    #: On SIGTERM a worker has this long to finish its turn before it hands it back.
    drain_s: Annotated[float, BeforeValidator(number), Field(ge=0, le=3600)] = 20.0
    #: The platform's time between SIGTERM and SIGKILL, where it cannot be found out.
    stop_grace_s: Seconds | None = None
    #: Lease time to live; a holder renews at a third of it. 5 s survives a slow broker and still
    #: gives an agent back within 6 s when a whole host vanishes.
    lease_ttl_s: Annotated[float, BeforeValidator(number), Field(ge=1, le=300)] = 5.0
    #: The oldest waiting dispatch passes more urgent ones after this, and once in this time.
    ageing_s: Seconds = 60.0
    retention: RetentionConfig = RetentionConfig()

    agents: dict[str, AgentConfig] = {}
    tools: dict[str, ToolsConfig] = {}
    routes: RoutesConfig = RoutesConfig()
    chains: dict[str, sections.ChainConfig] = {}
    upstream: UpstreamConfig = UpstreamConfig()
    caps: CapsConfig = CapsConfig()
    bus: BusConfig = BusConfig()
    breaker: BreakerConfig = BreakerConfig()
    spool: SpoolConfig = SpoolConfig()
    locks: LocksConfig = LocksConfig()
    sessions: SessionsConfig = SessionsConfig()
    #: Name -> priority, besides those of `routing.event`.
    lanes: dict[str, Priority] = {}
    #: Receivers of outcomes.
    deliveries: dict[str, DeliveryConfig] = {}
    alerts: AlertsConfig = AlertsConfig()
    api: ApiConfig = ApiConfig()
    mcp: McpConfig = McpConfig()
    flower: FlowerConfig = FlowerConfig()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, which arrives as the initial values."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _whole(self) -> "Settings":
        if not self.agents:
            raise ConfigError("agents: the fleet has no agent; add an [agents.NAME] table.")
        for name, agent in self.agents.items():
            if not _NAME.match(name) or name == ALL_HANDS:
                raise ConfigError(
                    f"agents.{_shown(name)}: a name is letters, digits, '-' and '_', "
                    "64 at most, not 'all'."
                )
            if self.hard_limit_s(name) >= self.visibility_timeout_s:
                key = f"agents.{name}.timeout_s" if agent.timeout_s else "fleet.dispatch_timeout_s"
                raise ConfigError(
                    f"{key}: the hard limit ({self.hard_limit_s(name):g} s) must stay below "
                    f"fleet.visibility_timeout_s ({self.visibility_timeout_s:g} s)."
                )
        for key, url in (("broker_url", self.broker_url), ("store_url", self.store_url)):
            if url is not None and url.partition("://")[0] not in _SCHEMES:
                raise ConfigError(f"fleet.{key}: the scheme must be one of {', '.join(_SCHEMES)}.")
        self._check_deliveries()
        self._check_callbacks()
        for name in self.lanes:
            if not _NAME.match(name):
                raise ConfigError(
                    f"lanes.{_shown(name)}: a name is letters, digits, '-' and '_', 64 at most."
                )
        self._check_tools()
        try:
            self.rules()
            self.routing_chains()
        except InvalidRoute as error:
            raise ConfigError(str(error)) from error
        return self

    def _check_deliveries(self) -> None:
        for name, delivery in self.deliveries.items():
            if not _NAME.match(name) or name == UPSTREAM:
                raise ConfigError(
                    f"deliveries.{_shown(name)}: a name is letters, digits, '-' and '_', "
                    f"64 at most, not '{UPSTREAM}'."
                )
            if delivery.agent is not None and delivery.agent not in self.agents:
                raise ConfigError(
                    f"deliveries.{name}.agent: {_shown(delivery.agent)} is no agent of this fleet."
                )
        asked = {f"agents.{name}": agent.deliver for name, agent in self.agents.items()}
        asked |= {f"chains.{_shown(name)}": chain.deliver for name, chain in self.chains.items()}
        for key, names in asked.items():
            for target in names:
                if target not in self.deliveries:
                    raise ConfigError(f"{key}.deliver: there is no [deliveries.{_shown(target)}].")
            if len(set(names)) < len(names):
                raise ConfigError(f"{key}.deliver: names a receiver twice.")

    def _check_callbacks(self) -> None:
        callers = [name for name, agent in self.agents.items() if agent.callback]
        if callers and self.api.host in ("0.0.0.0", "::") and not self.api.public_url:  # noqa: S104
            raise ConfigError(
                f"api.public_url: agents.{callers[0]}.callback needs it, since api.host is no "
                "address that a service can call."
            )

    def _check_tools(self) -> None:
        if sections.OWN_TOOLS in self.tools:
            raise ConfigError(f"tools.{sections.OWN_TOOLS}: this name is the fleet's own tools'.")
        for name, agent in self.agents.items():
            for tool in agent.tools:
                if tool != sections.OWN_TOOLS and tool not in self.tools:
                    known = ", ".join((sections.OWN_TOOLS, *map(_shown, self.tools)))
                    raise ConfigError(
                        f"agents.{name}.tools: there is no [tools.{_shown(tool)}]; "
                        f"known are {known}."
                    )
            for other in agent.dispatch_to or ():
                if other not in self.agents:
                    raise ConfigError(
                        f"agents.{name}.dispatch_to: {_shown(other)} is no agent of this fleet."
                    )
        for name in self.mcp.tools:
            if name not in self.tools or not self.tools[name].is_server:
                raise ConfigError(
                    f"mcp.tools: [tools.{_shown(name)}] is no server of tools: name one that is."
                )

    def uses_tool_servers(self, agent: str) -> bool:
        """Whether an agent's model may call tools of a Model Context Protocol server."""
        sets = (self.tools.get(name) for name in self.agents[agent].tools)
        return any(tool is not None and tool.is_server for tool in sets)

    def timeout_s(self, agent: str) -> float:
        """The soft limit of one agent's turns, in seconds."""
        return self.agents[agent].timeout_s or self.dispatch_timeout_s

    def hard_limit_s(self, agent: str) -> float:
        """The limit at which Celery kills the child that runs the turn, in seconds."""
        return self.timeout_s(agent) + self.hard_limit_margin_s

    @property
    def runs_offline(self) -> bool:
        """Whether turns run from the spool while the broker is away.

        Only where no other machine can run them meanwhile: what a broker that this machine cannot
        reach lets others do, nobody here can know.
        """
        direct = self.broker_url is None if self.spool.direct is None else self.spool.direct
        return direct and self.spool.max_events > 0

    def rules(self) -> Rules:
        """The route table for `routing.decide`."""
        return Rules.checked(
            self.agents,
            self.routes.groups,
            self.routes.default,
            self.routes.mentions,
            self.chains,
            rules=[rule.rule() for rule in self.routes.rules],
            match=self.routes.match,
            max_hops=self.routes.max_hops,
            lanes={**LANES, **self.lanes},
        )

    def routing_chains(self) -> dict[str, Chain]:
        """The chains by name. Raises InvalidRoute naming the key of a mistake."""
        return {name: self.chain(name) for name in self.chains}

    def people(self) -> tuple[str, ...]:
        """Every `human:NAME` that a chain asks."""
        people = (chain.people for chain in self.routing_chains().values())
        return tuple(dict.fromkeys(person for names in people for person in names))

    def chain(self, name: str) -> Chain:
        """A chain with its names resolved. Raises InvalidRoute naming the key of a mistake."""
        chain, targets = self.chains[name], Targets.checked(self.agents, self.routes.groups)
        for place, stage in enumerate(chain.stages):
            for agent in targets.members(stage.agent) or ():
                if stage.timeout_s is not None and stage.timeout_s > self.timeout_s(agent):
                    raise InvalidRoute(
                        f"chains.{_shown(name)}.stages.{place}.timeout_s must be at most "
                        f"{self.timeout_s(agent):g} s, the limit of {agent}."
                    )
        return Chain.checked(
            name,
            [StageRule(**stage.model_dump()) for stage in chain.stages],
            targets,
            human_deadline_s=chain.human_deadline_s,
            on_failure=chain.on_failure,
            on_silence=Verdict(chain.on_silence),
            max_revisions=chain.max_revisions,
        )


def find_file(explicit: str | None = None) -> Path | None:
    """The file to read: the given one, `$FLEET_CONFIG`, `./fleet.toml`, or None for the demo fleet.

    Raises ConfigError when a named file does not exist.
    """
    named = explicit or os.environ.get("FLEET_CONFIG")
    path = Path(named) if named else Path("fleet.toml")
    if path.is_file():
        return path
    if named:
        raise ConfigError(f"{path}: there is no such configuration file.")
    return None


@cache
def load(explicit: str | None = None) -> Settings:
    """The checked settings of this process. Raises ConfigError with one sentence."""
    path = find_file(explicit)
    return parse(_read(path) if path else {}, demo=path is None)


def parse(tables: dict[str, Any], *, demo: bool = False) -> Settings:
    """Check already-read TOML tables; `demo` adds the built-in fleet where no agents are given."""
    _check_environment()
    values = {key: value for key, value in tables.items() if key != "fleet"}
    for key, value in values.items():
        if key not in _SECTIONS:
            raise ConfigError(f"{key}: unknown section; known are fleet, {', '.join(_SECTIONS)}.")
        if not isinstance(value, dict):
            raise ConfigError(f"{key}: must be a table, written [{key}].")
    hoisted = tables.get("fleet", {})
    if not isinstance(hoisted, dict):
        raise ConfigError("fleet: must be a table, written [fleet].")
    for key in hoisted:
        if key not in _FLEET_KEYS:
            raise ConfigError(f"fleet.{key}: unknown key; known are {', '.join(_FLEET_KEYS)}.")
    if demo:
        from fleet.config.demo import DEMO_TABLES

        values = {**DEMO_TABLES, **values}
    try:
        return Settings(**hoisted, **values)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None
    except SettingsError as error:
        # Only the environment is parsed there; the cause would repeat the variable's value.
        field = re.search(r'field "(\w+)"', str(error))
        variable = f"FLEET_{field[1].upper()}" if field else "FLEET_..."
        raise ConfigError(
            f"{variable}: this variable, or one that begins so, is no valid JSON."
        ) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}).") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}.") from error


_SECTIONS = tuple(
    name
    for name in Settings.model_fields
    if name
    in {"agents", "tools", "routes", "chains", "upstream", "bus", "breaker", "locks"}
    | {"sessions", "lanes", "caps", "alerts", "deliveries"}
    | {"api", "flower", "mcp", "spool"}
)
_FLEET_KEYS = tuple(name for name in Settings.model_fields if name not in _SECTIONS)


def _check_environment() -> None:
    for variable, value in os.environ.items():
        if not variable.startswith("FLEET_") or variable.startswith(_NOT_SETTINGS):
            continue
        field = variable.removeprefix("FLEET_").partition("__")[0].lower()
        if field not in Settings.model_fields and not is_of_service(variable, value):
            meant = nearest(variable, _variables())
            remedy = f"{meant} is near; unset or correct it" if meant else "unset or correct it"
            raise ConfigError(f"{_shown(variable)}: no setting has this name; {remedy}.")


def _variables() -> Iterator[str]:
    """The settings as the environment names them, those of the sections one level down."""
    for name, field in Settings.model_fields.items():
        yield f"FLEET_{name.upper()}"
        for key in getattr(field.annotation, "model_fields", ()):
            yield f"FLEET_{name.upper()}__{key.upper()}"


def _sentence(error: ValidationError) -> str:
    """The first mistake as `key: what is wrong`; the value itself may be secret and is left out."""
    first = error.errors(include_url=False, include_input=False)[0]
    location = [str(part) for part in first["loc"]]
    if location and location[0] in _FLEET_KEYS:
        location.insert(0, "fleet")
    key = _shown(".".join(location)) or "fleet"
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key."
    cause = first.get("ctx", {}).get("error")
    return f"{key}: {cause if cause is not None else first['msg']}".rstrip(".") + "."


def _shown(key: str) -> str:
    """A key from the file, safe to repeat in a sentence."""
    return "".join(char if char.isprintable() else "?" for char in key)

"""The configuration: `fleet.toml`, overridden by `FLEET_...` in the environment, checked whole.

Read once per process with `load`; every mistake is a ConfigError that names the key. `Settings` has
the keys of `[fleet]`. The other sections are in the other modules of `fleet.config`. A new section
is also named in `_SECTIONS`.
"""

import json
import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
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

from fleet.config.agents import AgentConfig
from fleet.config.api import ApiConfig
from fleet.config.checks import check, shown
from fleet.config.deliveries import DeliveryConfig
from fleet.config.fields import Names, Port, Priority, Seconds, number
from fleet.config.mcp import McpConfig
from fleet.config.misspelt_variables import check_variables
from fleet.config.nearest_name import known_keys, nearest
from fleet.config.pools import PoolConfig
from fleet.config.routes import ChainConfig, RoutesConfig
from fleet.config.sections import (
    AlertsConfig,
    BreakerConfig,
    BusConfig,
    CapsConfig,
    FlowerConfig,
    LocksConfig,
    RetentionConfig,
    SessionsConfig,
)
from fleet.config.spool import SpoolConfig
from fleet.config.tools import ToolsConfig
from fleet.config.upstream import UpstreamConfig
from fleet.config.worker_queues import WorkerQueues
from fleet.errors import ConfigError
from routing import Chain, InvalidRoute, Rules, StageRule, Verdict
from routing.event import LANES
from routing.rules import Targets

#: Faults of a value that had to be a list, or a table, as pydantic names them.
_LISTS = ("tuple_type", "list_type")
_TABLES = ("dict_type", "model_type", "model_attributes_type")


class Settings(WorkerQueues, BaseSettings):
    """Everything an operator can set. Keys of the `[fleet]` table stand at the top level here."""

    model_config = SettingsConfigDict(
        env_prefix="FLEET_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    broker_url: str | None = Field(
        default=None,
        description="URL of a broker of your own: `redis://`, `valkey://`, `unix://`, `amqp://`, "
        "`sentinel://H:P;sentinel://H:P/0?master_name=NAME` ...; without it, an embedded Valkey. "
        "TLS: `rediss://HOST/0?ssl_ca_certs=FILE`.",
    )
    store_url: str | None = Field(
        default=None,
        description="Ledger, leases and bus, needed with `amqp://`; without it, the broker.",
    )
    dispatch_timeout_s: Seconds = Field(default=120.0, description="The soft limit of a turn.")
    #: Time to end a turn in order.
    hard_limit_margin_s: Seconds = Field(
        default=30.0, description="How much later than the soft limit a turn is killed."
    )
    #: kombu redelivers an unacknowledged message after this.
    visibility_timeout_s: Seconds = Field(
        default=3600.0, description="Celery's; every hard limit must be below it."
    )
    data_dir: Path = Field(
        default=Path(".fleet"),
        description="The folder of the embedded broker, its socket and password, the spool and "
        "the logs; a relative path begins where a command runs.",
    )
    durability: Literal["always", "everysec"] = Field(
        default="always", description="When the embedded broker syncs its writes to disk."
    )
    broker_tcp: Port = Field(
        default=0,
        description="A port of loopback for programs that cannot use the embedded broker's "
        "socket; 0 opens none.",
    )
    log_content: bool = Field(
        default=False,
        description="Whether logs may hold content: messages of exceptions and of libraries.",
    )
    drain_s: Annotated[float, BeforeValidator(number), Field(ge=0, le=3600)] = Field(
        default=20.0,
        description="How long a stopping worker lets its turn go on before it hands it back.",
    )
    stop_grace_s: Seconds | None = Field(
        default=None,
        description="The platform's time between SIGTERM and SIGKILL, where the fleet cannot find "
        "it out.",
    )
    #: A holder renews at a third of it. 5 s survives a slow broker and still gives an agent back
    #: within 6 s when a whole host vanishes.
    lease_ttl_s: Annotated[float, BeforeValidator(number), Field(ge=1, le=300)] = Field(
        default=5.0, description="How soon an agent is free again when its whole host vanishes."
    )
    offers: Names = Field(
        default=(),
        description="Kinds of pools that this host runs beside those that need nothing, such as "
        "`gpu`; see `pools.NAME.needs`.",
    )
    ageing_s: Seconds = Field(
        default=60.0,
        description="The oldest waiting dispatch passes more urgent ones after this, once in this "
        "time.",
    )
    retention: RetentionConfig = Field(
        default=RetentionConfig(), description="How long, and how many, ended dispatches are kept."
    )

    agents: dict[str, AgentConfig] = Field(default={}, description="The agents by name.")
    pools: dict[str, PoolConfig] = Field(
        default={}, description="Workers for many agents, by name."
    )
    tools: dict[str, ToolsConfig] = Field(default={}, description="Sets of tools by name.")
    routes: RoutesConfig = Field(default=RoutesConfig(), description="Who gets which event.")
    chains: dict[str, ChainConfig] = Field(default={}, description="Chains by name.")
    upstream: UpstreamConfig = Field(
        default=UpstreamConfig(), description="An outside gateway to take events from."
    )
    caps: CapsConfig = Field(default=CapsConfig(), description="Limits of intake.")
    bus: BusConfig = Field(default=BusConfig(), description="The bus and its clients.")
    breaker: BreakerConfig = Field(
        default=BreakerConfig(), description="The circuit breaker before the broker."
    )
    spool: SpoolConfig = Field(
        default=SpoolConfig(), description="Events on disk while the broker is away."
    )
    locks: LocksConfig = Field(
        default=LocksConfig(), description="Locks of tool servers that are passed on over `/mcp`."
    )
    sessions: SessionsConfig = Field(
        default=SessionsConfig(), description="History of sessions, and coalesced events."
    )
    lanes: dict[str, Priority] = Field(
        default={},
        description="Names for priorities, besides `human` 9, `default` 5 and `background` 0; "
        "unmarked events get `default`.",
    )
    deliveries: dict[str, DeliveryConfig] = Field(
        default={}, description="Receivers of outcomes by name."
    )
    alerts: AlertsConfig = Field(
        default=AlertsConfig(), description="Where alerts go besides the bus."
    )
    api: ApiConfig = Field(default=ApiConfig(), description="The HTTP side.")
    mcp: McpConfig = Field(default=McpConfig(), description="Tools for clients of `/mcp`.")
    flower: FlowerConfig = Field(
        default=FlowerConfig(), description="Flower, on loopback and read-only."
    )

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
        check(self)
        return self

    def uses_tool_servers(self, agent: str) -> bool:
        """True when an agent's model may call tools of a Model Context Protocol server."""
        sets = (self.tools.get(name) for name in self.agents[agent].tools)
        return any(tool is not None and tool.is_server for tool in sets)

    def code_packages(self) -> dict[str, str]:
        """The packages of the agents' and tools' own code, by the keys that name them."""
        sections: dict[str, Mapping[str, AgentConfig | ToolsConfig]] = {
            "agents": self.agents,
            "tools": self.tools,
        }
        return {
            f"{section}.{name}.python": table.python.partition(":")[0].partition(".")[0]
            for section, tables in sections.items()
            for name, table in tables.items()
            if table.python
        }

    def timeout_s(self, agent: str) -> float:
        """The soft limit of one agent's turns, in seconds."""
        return self.agents[agent].timeout_s or self.dispatch_timeout_s

    def hard_limit_s(self, agent: str) -> float:
        """The limit at which Celery kills the child that runs the turn, in seconds."""
        return self.timeout_s(agent) + self.hard_limit_margin_s

    @property
    def runs_offline(self) -> bool:
        """True when turns run from the spool while the broker is away.

        This needs certainty that no other machine runs the same agents at that time.
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
        """Every `human:NAME` of a chain's stages."""
        people = (chain.people for chain in self.routing_chains().values())
        return tuple(dict.fromkeys(person for names in people for person in names))

    def chain(self, name: str) -> Chain:
        """A chain with its names resolved. Raises InvalidRoute naming the key of a mistake."""
        chain, targets = self.chains[name], Targets.checked(self.agents, self.routes.groups)
        for place, stage in enumerate(chain.stages):
            for agent in targets.members(stage.agent) or ():
                if stage.timeout_s is not None and stage.timeout_s > self.timeout_s(agent):
                    raise InvalidRoute(
                        f"chains.{shown(name)}.stages.{place}.timeout_s must be at most "
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

    Raises ConfigError when a named file does not exist, and for a folder.
    """
    named = explicit or os.environ.get("FLEET_CONFIG")
    path = Path(named) if named else Path("fleet.toml")
    if path.is_file():
        return path
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name the file in it, as {path / 'fleet.toml'}.")
    if named:
        raise ConfigError(f"{path}: there is no such configuration file.")
    return None


@cache
def load(explicit: str | None = None) -> Settings:
    """The checked settings of this process. Raises ConfigError with one sentence."""
    return parse(read_tables(find_file(explicit)))


def read_anew(check: Callable[[Settings], None]) -> Settings:
    """The settings as the file has them now, for this process from now on.

    Raises FleetError, from `check` too; then the earlier ones stay.
    """
    check(parse(read_tables(find_file())))
    load.cache_clear()
    return load()


def parse(tables: dict[str, Any], *, demo: bool = False) -> Settings:
    """Check already-read TOML tables; `demo` adds the built-in fleet where no agents are given."""
    check_variables(Settings.model_fields)
    values = {key: value for key, value in tables.items() if key != "fleet"}
    for key, value in values.items():
        if key not in _SECTIONS:
            raise _unknown("section", key, ("fleet", *_SECTIONS))
        if not isinstance(value, dict):
            raise ConfigError(f"{key}: must be a table, written [{key}].")
    hoisted = tables.get("fleet", {})
    if not isinstance(hoisted, dict):
        raise ConfigError("fleet: must be a table, written [fleet].")
    for key in hoisted:
        if key not in FLEET_KEYS:
            raise _unknown("key", f"fleet.{key}", FLEET_KEYS)
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
            f"{variable}: this variable, or one that begins so, is not valid JSON."
        ) from None


def read_tables(path: Path | None) -> dict[str, Any]:
    """The tables of a file, in TOML or, by its name, in JSON; those of the demo fleet for None.

    Raises ConfigError.
    """
    if path is None:
        from fleet.config.demo import DEMO_TABLES

        return DEMO_TABLES
    try:
        if path.suffix == ".json":
            found: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
            return found
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot be read ({why}).") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}.") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: is not a JSON object: {error}.") from error


_SECTIONS = tuple(
    name
    for name in Settings.model_fields
    if name
    in {"agents", "pools", "tools", "routes", "chains", "upstream", "bus", "breaker", "locks"}
    | {"sessions", "lanes", "caps", "alerts", "deliveries"}
    | {"api", "flower", "mcp", "spool"}
)
FLEET_KEYS = tuple(name for name in Settings.model_fields if name not in _SECTIONS)


def _unknown(kind: str, key: str, known: Collection[str]) -> ConfigError:
    """The refusal of a key or a section that does not exist."""
    name = key.rpartition(".")[2]
    meant = nearest(name, known)
    remedy = f"did you mean {meant}?" if meant else f"known are {', '.join(known)}."
    if not meant and name in AgentConfig.model_fields:
        remedy = f"it belongs to an agent, as agents.NAME.{name}."
    elif kind == "key" and name in _SECTIONS:
        remedy = f"it is a table of its own, [{name}]."
    return ConfigError(f"{shown(key)}: unknown {kind}; {remedy}")


def _sentence(error: ValidationError) -> str:
    """The first mistake as `key: what is wrong`; the value itself may be secret and is left out."""
    first = error.errors(include_url=False, include_input=False)[0]
    location = [str(part) for part in first["loc"]]
    if location and location[0] in FLEET_KEYS:
        location.insert(0, "fleet")
    key = shown(".".join(location)) or "fleet"
    if first["type"] == "extra_forbidden":
        meant = nearest(str(first["loc"][-1]), known_keys(Settings, first["loc"][:-1]))
        remedy = f"did you mean {meant}?" if meant else "correct or remove it."
        return f"{key}: unknown key; {remedy}"
    if first["type"] in _LISTS:
        parts = '"program", "argument"' if location[-1] == "command" else '"...", "..."'
        return f"{key}: must be a list, written {shown(location[-1])} = [{parts}]."
    if first["type"] in _TABLES:
        return f"{key}: must be a table, written [{key}]."
    cause = first.get("ctx", {}).get("error")
    return f"{key}: {cause if cause is not None else first['msg']}".rstrip(".") + "."

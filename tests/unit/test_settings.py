"""`fleet.toml` and `FLEET_...`: what holds when nothing is said, and each mistake in a sentence."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.config.settings import Settings, load, parse, read_tables
from fleet.errors import ConfigError
from fleet.store.address import broker_url, results_url, store_url, wakeups_in_store

Config = Callable[[str], Settings]

#: Stands for a password or a key: no sentence may repeat it.
SECRET = "sk-canary-4711"

ONE = '[agents.a]\nrunner = "python"\npython = "m:f"\n'
TALK = '[agents.a]\nrunner = "pty"\ncommand = ["x"]\n'

LLM = "[agents.a]\nmodel = 'x/y'\n"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FLEET_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Reads a text as `fleet.toml`."""

    def read(text: str) -> Settings:
        path = tmp_path / "fleet.toml"
        path.write_text(text)
        load.cache_clear()
        return load(str(path))

    return read


def test_what_holds_when_nothing_is_said(config: Config) -> None:
    settings = config(ONE)
    assert settings.timeout_s("a") == 120
    assert settings.hard_limit_s("a") == 150
    assert settings.hard_limit_s("a") < settings.visibility_timeout_s
    assert settings.durability == "always"
    assert settings.broker_url is None
    assert settings.bus.max_length == 10_000
    assert settings.agents["a"].retry.attempts == 3
    assert settings.retention.completed_s == 7 * 86400


def test_the_example_of_the_interface_is_understood(config: Config) -> None:
    settings = config(
        """
        [fleet]
        broker_url = "valkey://127.0.0.1:6379/0"
        dispatch_timeout_s = 60
        retention = { completed_s = 3600, dead_s = 7200, max = 10 }
        [agents.archie]
        model = "anthropic/claude-sonnet-4-5"
        fallbacks = ["ollama/llama3.1"]
        instructions = "You are Archie, the architect."
        timeout_s = 90
        retry = { attempts = 5, backoff_s = 1 }
        budget = { usd_per_day = 5.0 }
        tools = ["files"]
        [agents.gem]
        runner = "python"
        python = "mine:gem"
        [tools.files]
        command = ["uvx", "mcp-server-filesystem", "/srv/docs"]
        classes = { read_file = "read", write_file = "write" }
        [routes]
        default = ["archie"]
        groups = { reviewers = ["gem"] }
        [chains.release]
        stages = ["archie", "@reviewers", "human:ops"]
        on_failure = "skip"
        [upstream]
        ws = "wss://gateway.example/ws"
        [bus]
        max_length = 500
        [breaker]
        failure_threshold = 3
        [locks]
        on_store_down = "open"
        [alerts]
        webhook = "https://example.com/sk-canary-4711"
        """
    )
    assert settings.timeout_s("archie") == 90
    assert settings.timeout_s("gem") == 60
    assert settings.rules().targets.members("@reviewers") == ("gem",)
    assert settings.retention.max == 10
    assert broker_url(settings) == store_url(settings) == "redis://127.0.0.1:6379/0"
    assert wakeups_in_store(settings)
    assert SECRET not in repr(settings)


@pytest.mark.parametrize("url", ["unix:///a/b?db=2", "redis+socket:///a/b?virtual_host=2"])
def test_a_socket_is_named_in_the_words_of_whoever_connects_to_it(url: str) -> None:
    settings = parse({"agents": {"a": {"model": "echo/brief"}}, "fleet": {"broker_url": url}})
    assert broker_url(settings) == results_url(settings) == "redis+socket:///a/b?virtual_host=2"
    assert store_url(settings) == "unix:///a/b?db=2"
    assert wakeups_in_store(settings)


def test_with_no_file_there_is_a_demo_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    load.cache_clear()
    settings = load()
    assert len(settings.agents) == 6
    assert all(
        agent.model and agent.model.startswith("echo/") for agent in settings.agents.values()
    )
    load.cache_clear()


SIGNED = "[agents.a]\nrunner = 'http'\nurl = 'http://x'\nsecret = '0123456789abcdef'\n"

MISTAKES = {
    "no TOML": ("[fleet", "is not valid TOML"),
    "unknown section": (f"{ONE}[agent.b]", "agent: unknown section; did you mean agents?"),
    "unknown key of the fleet": (
        f"{ONE}[fleet]\nbroker = 1",
        "fleet.broker: unknown key; did you mean broker_url?",
    ),
    "unknown key of an agent": (
        f"{ONE}modell = 'x'",
        "agents.a.modell: unknown key; did you mean model?",
    ),
    "unknown key further down": (
        f"{ONE}retry = {{ attempt = 3 }}",
        "agents.a.retry.attempt: unknown key; did you mean attempts?",
    ),
    "unknown key of a section": (
        f"{ONE}[bus]\nlength = 1",
        "bus.length: unknown key; did you mean max_length?",
    ),
    "unknown key of a table in a list": (
        f"{ONE}fallbacks = [{{ modle = 'x/y' }}]",
        "agents.a.fallbacks.0.model: Field required",
    ),
    "unknown key of a stage": (
        f"{ONE}[[chains.c.stages]]\nagent = 'a'\ntimeout = 3",
        "chains.c.stages.0.timeout: unknown key; did you mean timeout_s?",
    ),
    "unknown key of an unknown kind": (
        f"{ONE}zebra = 'x'",
        "agents.a.zebra: unknown key; correct or remove it.",
    ),
    "unknown section of an unknown kind": (
        f"{ONE}[quux]",
        "quux: unknown section; known are fleet, ",
    ),
    "an agent's table": (f"{ONE}[retry]", "retry: unknown section; it belongs to an agent, as "),
    "an agent's key": (f"{ONE}[fleet]\nstream = true", "as agents.NAME.stream."),
    "a table in fleet": (f"{ONE}[fleet.alerts]", "it is a table of its own, [alerts]."),
    "a section that is no table": ("bus = 3", "bus: must be a table"),
    "fleet that is no table": ("fleet = 3", "fleet: must be a table"),
    "an agent that is no table": ("agents = { a = 3 }", "agents.a: "),
    "wrong type": (f"{ONE}timeout_s = 'soon'", "agents.a.timeout_s: "),
    "a switch for a number": (f"{ONE}timeout_s = true", "agents.a.timeout_s: must be a number"),
    "a switch for the lease": (f"{ONE}[fleet]\nlease_ttl_s = true", "fleet.lease_ttl_s: must be"),
    "a switch for the drain": (f"{ONE}[fleet]\ndrain_s = true", "fleet.drain_s: must be a number"),
    "zero seconds": (f"{ONE}timeout_s = 0", "agents.a.timeout_s: "),
    "no end": (f"{ONE}timeout_s = inf", "agents.a.timeout_s: "),
    "not a number": (f"{ONE}timeout_s = nan", "agents.a.timeout_s: "),
    "not a number for the lease": (f"{ONE}[fleet]\nlease_ttl_s = nan", "fleet.lease_ttl_s: "),
    "negative": (f"{ONE}[fleet]\ndrain_s = -1", "fleet.drain_s: "),
    "a fraction of a count": (f"{ONE}max_pending = 1.5", "agents.a.max_pending: "),
    "no agent": ("[fleet]\ndrain_s = 1", "agents: the fleet has no agent"),
    "no model": ("[agents.a]\nrunner = 'llm'", "agents.a: has no model"),
    "no callable": ("[agents.a]\nrunner = 'python'", "agents.a: names no callable"),
    "unknown runner": ("[agents.a]\nrunner = 'perl'", "agents.a.runner: "),
    "no room at all": (f"{ONE}[caps]\nmax_waiting = 0", "caps.max_waiting: "),
    "more than all memory": (f"{ONE}[caps]\nstore_memory = 2", "caps.store_memory: "),
    "an unknown overflow": (f"{ONE}overflow = 'drop'", "agents.a.overflow: "),
    "no program": ("[agents.a]\nrunner = 'command'", "agents.a: has no program"),
    "no program for a terminal": ("[agents.a]\nrunner = 'pty'", "agents.a: has no program"),
    "a terminal of another runner": (f"{ONE}terminal = {{}}", "agents.a: has a terminal, but only"),
    "a prompt that is no pattern": (
        f"{TALK}terminal = {{ ready = '(' }}",
        "agents.a.terminal.ready: is not a regular expression",
    ),
    "a prompt that says nothing": (
        f"{TALK}terminal = {{ ready = '>*' }}",
        "agents.a.terminal.ready: matches an empty line",
    ),
    "no quiet at all": (f"{TALK}terminal = {{ quiet_s = 0 }}", "agents.a.terminal.quiet_s: "),
    "a typo in a terminal": (f"{TALK}terminal = {{ redy = 'x' }}", "agents.a.terminal.redy: "),
    "no address": ("[agents.a]\nrunner = 'http'\nurl = 'x.example'", "agents.a: has no address"),
    "a weak secret": (f"{ONE}secret = 'short'", "agents.a.secret: is shorter than 16 bytes"),
    "a callback that nobody signs": (f"{ONE}callback = true", "agents.a: has a callback, which"),
    "a callback to nowhere": (
        f"{SIGNED}callback = true\n[api]\nhost = '0.0.0.0'",
        "api.public_url: agents.a.callback needs it",
    ),
    "an address with a password": (
        f"{ONE}[api]\npublic_url = 'https://a:b@x'",
        "api.public_url: must be a URL",
    ),
    "a name with a space": ("[agents.'a b']\nmodel = 'x/y'", "agents.a b: a name is"),
    "a name with a newline": ('[agents."a\\nb"]\nmodel = "x/y"', "a name is"),
    "the name of all": ("[agents.all]\nmodel = 'x/y'", "agents.all: a name is"),
    "a route to nobody": (f"{ONE}[routes]\ndefault = ['b']", "routes.default names 'b'"),
    "a tool set that is not there": (
        f"{LLM}tools = ['x']",
        "agents.a.tools: there is no [tools.x]",
    ),
    "tools of another runner": (f"{ONE}tools = ['queue']", "agents.a: has tools, but only"),
    "no tool rounds": (f"{LLM}max_tool_rounds = 0", "agents.a.max_tool_rounds: "),
    "work for nobody": (f"{LLM}dispatch_to = ['b']", "agents.a.dispatch_to: b is not an agent"),
    "two kinds of tools": (f"{ONE}[tools.x]\npython = 'm:t'\nurl = 'http://a'", "tools.x: has `py"),
    "no kind of tools": (f"{ONE}[tools.x]\ntimeout_s = 5", "tools.x: has no tools"),
    "a tool server of no address": (f"{ONE}[tools.x]\nurl = 'ftp://a'", "tools.x.url: must be a U"),
    "a tool server's password": (f"{ONE}[tools.x]\nurl = 'http://u:p@a'", "tools.x.url: must hold"),
    "headers for a program": (
        f"{ONE}[tools.x]\ncommand = ['y']\nheaders = {{ a = 'b' }}",
        "tools.x: has `headers`",
    ),
    "a header of two lines": (
        f"{ONE}[tools.x]\nurl = 'http://a'\nheaders = {{ a = \"b\\nc\" }}",
        "tools.x.headers: must hold no line break",
    ),
    "an environment for an address": (
        f"{ONE}[tools.x]\nurl = 'http://a'\nenv = {{ a = 'b' }}",
        "tools.x: has `env`",
    ),
    "a tool set without tools": (f"{ONE}[tools.x]\npython = 'm:'", "tools.x: has no tools"),
    "the fleet's own tools": (
        f"{ONE}[tools.queue]\npython = 'm:t'",
        "tools.queue: the fleet's own tools",
    ),
    "a third class": (f"{ONE}[tools.x]\npython = 'm:t'\nclasses.f = 'x'", "tools.x.classes.f: "),
    "a group of nobody": (f"{ONE}[routes.groups]\ng = ['b']", "routes.groups.g names 'b'"),
    "an empty group": (f"{ONE}[routes.groups]\ng = []", "routes.groups.g is empty"),
    "a rule without a name": (f"{ONE}[[routes.rules]]\nto = 'a'", "routes.rules.0.name: "),
    "a rule to nobody": (
        f"{ONE}[[routes.rules]]\nname = 'r'\nto = 'b'",
        "routes.rules.r.to names 'b'",
    ),
    "an unknown condition": (
        f"{ONE}[[routes.rules]]\nname = 'r'\nto = 'a'\ntypo = 'x'",
        "routes.rules.0.typo: unknown key; did you mean type?",
    ),
    "a pattern of a wrong type": (
        f"{ONE}[[routes.rules]]\nname = 'r'\nto = 'a'\ntype = [1]",
        "routes.rules.0.type.0: ",
    ),
    "a date among the data": (
        f"{ONE}[[routes.rules]]\nname = 'r'\nto = 'a'\ndata = {{ d = 2026-01-01 }}",
        "routes.rules.r.data.d must be",
    ),
    "rules that are no list": (
        f"{ONE}[routes.rules]\nname = 'r'",
        "routes.rules: must be an array of",
    ),
    "a number for a target": (
        f"{ONE}[[routes.rules]]\nname = 'r'\nto = 3",
        "routes.rules.0.to: must be a string or a list",
    ),
    "an unknown way to match": (f"{ONE}[routes]\nmatch = '{SECRET}'", "routes.match: "),
    "hops below zero": (f"{ONE}[routes]\nmax_hops = -1", "routes.max_hops: "),
    "a switch for hops": (f"{ONE}[routes]\nmax_hops = true", "routes.max_hops: must be a number"),
    "an unknown member policy": (
        f"{ONE}[routes]\non_member_failure = 'stop'",
        "routes.on_member_failure: ",
    ),
    "a limit above the visibility timeout": (
        f"{ONE}timeout_s = 3600",
        "agents.a.timeout_s: the hard limit (3630 s) must stay below fleet.visibility_timeout_s",
    ),
    "the common limit above it": (
        f"{ONE}[fleet]\ndispatch_timeout_s = 3570",
        "fleet.dispatch_timeout_s: the hard limit (3600 s)",
    ),
    "unknown scheme": (f"{ONE}[fleet]\nbroker_url = 'http://{SECRET}@h'", "fleet.broker_url: "),
    "no scheme": (f"{ONE}[fleet]\nstore_url = '{SECRET}@h:1'", "fleet.store_url: "),
    "a secret of a wrong type": (
        f"{ONE}[alerts]\nwebhook = ['{SECRET}']",
        "alerts.webhook: ",
    ),
    "unknown durability": (f"{ONE}[fleet]\ndurability = '{SECRET}'", "fleet.durability: "),
    "port out of range": (f"{ONE}[api]\nport = 65536", "api.port: "),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence_that_names_the_key(case: str, config: Config) -> None:
    text, words = MISTAKES[case]
    with pytest.raises(ConfigError) as refusal:
        config(text)
    sentence = str(refusal.value)
    assert words in sentence
    assert SECRET not in sentence
    assert sentence.isprintable()
    assert sentence.endswith((".", "?"))
    assert refusal.value.exit_code == 2


def test_a_named_file_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load.cache_clear()
    with pytest.raises(ConfigError, match="there is no such configuration file"):
        load(str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match="is a folder; name the file in it"):
        load(str(tmp_path))
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match="there is no such configuration file"):
        load()


def test_a_file_that_has_gone_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone.toml: cannot be read \(No such file [a-z ]+\)\.$"):
        read_tables(tmp_path / "gone.toml")


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(str(path))


def test_the_environment_wins_over_the_file(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_BROKER_URL", "redis://env:1/0")
    monkeypatch.setenv("FLEET_BUS__MAX_LENGTH", "77")
    monkeypatch.setenv("FLEET_AGENTS__A__TIMEOUT_S", "7")
    monkeypatch.setenv("FLEET_AGENTS__A__RETRY__ATTEMPTS", "9")
    monkeypatch.setenv("FLEET_RETENTION__MAX", "5")
    text = f"{ONE}max_pending = 3\nretry = {{ backoff_s = 2 }}\n[fleet]\nbroker_url = 'redis://f:1'"
    settings = config(f"{text}\nretention = {{ dead_s = 9 }}")
    assert settings.broker_url == "redis://env:1/0"
    assert settings.bus.max_length == 77
    agent = settings.agents["a"]
    assert (agent.timeout_s, agent.max_pending) == (7, 3)
    assert (agent.retry.attempts, agent.retry.backoff_s) == (9, 2)
    assert (settings.retention.max, settings.retention.dead_s) == (5, 9)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("FLEET_BROKERURL", SECRET, "FLEET_BROKERURL: no setting has this name"),
        ("FLEET_AGENT__A__MODEL", SECRET, "FLEET_AGENT__A__MODEL: no setting has this name"),
        ("FLEET_BUS__LENGTH", "1", "bus.length: unknown key; did you mean max_length?"),
        ("FLEET_API__PORT", SECRET, "api.port: "),
        ("FLEET_DRAIN_S", SECRET, "fleet.drain_s: "),
        ("FLEET_AGENTS", SECRET, "FLEET_AGENTS: this variable"),
        (
            "FLEET_ROUTES__GROUPS",
            "{" + SECRET,
            "FLEET_ROUTES: this variable, or one that begins so, is no",
        ),
        ("FLEET_HARD_LIMIT_MARGIN_S", "true", "fleet.hard_limit_margin_s: "),
    ],
)
def test_a_mistake_in_the_environment_is_a_sentence_too(
    variable: str, value: str, words: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as refusal:
        config(ONE)
    assert words in str(refusal.value)
    assert SECRET not in str(refusal.value)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "variable", ["FLEET_CONFIG", "FLEET_TEST_ANYTHING", "FLEET_LIFELINE_FD", "FLEET_OUTPUTS_FD"]
)
def test_what_is_no_setting_is_let_through(
    variable: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "x")
    assert list(config(ONE).agents) == ["a"]

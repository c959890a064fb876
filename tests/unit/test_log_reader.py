"""Logs as they are read: merged by time, and followed while they grow and are set aside."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet.cli import main
from fleet.config.settings import load
from fleet.supervisor import output
from fleet.supervisor.log_reader import Log, names
from fleet.supervisor.output import LogFile, Output, log_time

CONFIG = "[agents.ada]\nmodel = 'echo/brief'\n[agents.bob]\nmodel = 'echo/brief'\n"
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "fleet.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    load.cache_clear()
    made = tmp_path / ".fleet" / "log"
    made.mkdir(parents=True)
    return made


def write(path: Path, *lines: tuple[int, str]) -> None:
    """Add lines, each so many seconds after noon."""
    with path.open("a") as file:
        file.writelines(
            f"{log_time(NOON + timedelta(seconds=seconds))} {text}\n" for seconds, text in lines
        )


def shown(capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        main(["logs", *args])
    assert ended.value.code == 0
    return capsys.readouterr().out.splitlines()


def said(capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    """The last word of each line."""
    return [line.rpartition(" ")[2] for line in shown(capsys, *args)]


def texts(log: Log) -> list[str]:
    return [line.text for line in log.lines()]


def test_all_are_merged_by_time_with_their_names(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "agent.ada.log.1", (0, "one"), (1, "two"))
    write(folder / "agent.ada.log", (5, "[2026-11-30 13:00:05,123: WARNING/Main] five"))
    write(folder / "api.log", (2, "three"), (4, "four"), (9, "six"))
    assert names(folder) == ["ada", "api"]
    assert shown(capsys) == [
        "2026-11-30 12:00:00 ada one",
        "2026-11-30 12:00:01 ada two",
        "2026-11-30 12:00:02 api three",
        "2026-11-30 12:00:04 api four",
        "2026-11-30 12:00:05 ada [WARNING/Main] five",
        "2026-11-30 12:00:09 api six",
    ]
    assert said(capsys, "ada") == ["one", "two", "five"]
    assert said(capsys, "api") == ["three", "four", "six"], "a process that is not an agent"
    assert said(capsys, "--lines", "2") == ["five", "six"]
    assert said(capsys, "--since", log_time(NOON + timedelta(seconds=4))) == ["four", "five", "six"]
    (last,) = shown(capsys, "--lines", "1", "--json")
    assert json.loads(last) == {"time": "2026-11-30T12:00:09.000Z", "name": "api", "line": "six"}


def test_lines_without_a_time_go_with_the_line_before(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "agent.ada.log", (0, "one"))
    with (folder / "agent.ada.log").open("ab") as file:
        file.write(b"(2 lines were dropped)\n\xff odd\n")
    write(folder / "agent.bob.log", (1, "two"))
    assert said(capsys) == ["one", "dropped)", "odd", "two"]


@pytest.mark.parametrize(("since", "lines"), [("10m", ["new"]), ("2d", ["old", "new"])])
def test_a_span_before_now(
    folder: Path, capsys: pytest.CaptureFixture[str], since: str, lines: list[str]
) -> None:
    now = datetime.now(UTC)
    write(folder / "agent.ada.log", (int((now - NOON).total_seconds()) - 3600, "old"))
    write(folder / "agent.ada.log", (int((now - NOON).total_seconds()) - 60, "new"))
    assert said(capsys, "--since", since) == lines


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (("adda",), 1, "There is no agent and no log 'adda': did you mean 'ada'?"),
        (("x",), 1, "There is no agent and no log 'x'; there are ada, bob."),
        (("--since", "soon"), 2, "'soon' is neither a span, such as 10m, 2h or 1d, nor a time."),
        (("--since", "999999d"), 2, "neither a span"),
    ],
)
def test_what_is_not_known_is_told_in_one_sentence(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...],
    code: int,
    sentence: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["logs", *args])
    assert ended.value.code == code
    assert sentence in capsys.readouterr().err


def test_an_agent_that_has_said_nothing_is_known(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(capsys, "bob") == []
    folder.rmdir()
    assert shown(capsys) == []


def test_a_log_is_followed_while_it_grows_and_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "LOG_BYTES_MAX", 200)
    path = tmp_path / "agent.ada.log"
    file = LogFile(path)
    writer = Output("agent.ada", file, lambda _name, _line: None)
    log, seen = Log(tmp_path, "ada"), list[str]()
    expected = [f"line {number}" for number in range(40)]
    for number, line in enumerate(expected):
        writer.write(line)
        if number % 3 == 0:  # two writes and perhaps one new file between two looks
            seen += texts(log)
    assert seen + texts(log) == expected
    assert path.with_name("agent.ada.log.1").exists()
    file.close()
    log.close()


def test_half_a_line_is_shown_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "api.log"
    write(path, (0, "one"))
    log = Log(tmp_path, "api")
    assert texts(log) == ["one"]
    with path.open("a") as file:
        file.write("2026-11-30T12:00:01.000Z tw")
        file.flush()
        assert texts(log) == []
        file.write("o\n")
    assert texts(log) == ["two"]
    log.close()

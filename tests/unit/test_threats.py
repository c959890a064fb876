"""The page about threats names, for each limit of each party, a test that is there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/design/threats.md"
PARTIES = ("network", "local user", "sender", "agent", "tool", "model", "receiver", "operator")


def sections() -> dict[str, list[list[str]]]:
    """The rows of each party's table, without its head."""
    found: dict[str, list[list[str]]] = {}
    for part in PAGE.read_text().split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        lines = [line for line in text.splitlines() if line.startswith("|")]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        assert rows[0] == ["it cannot", "because", "held by"], title
        found[re.sub("^(The|An?) ", "", title)] = rows[2:]
    return found


def test_every_party_has_its_limits() -> None:
    found = sections()
    assert (*found,) == PARTIES
    assert all(found.values())


def test_every_limit_is_held_by_tests_that_are_there() -> None:
    for party, rows in sections().items():
        for what, why, held in rows:
            assert what, party
            assert why, what
            paths = re.fullmatch(r"`(tests/\S+\.py)`(?:, `(tests/\S+\.py)`)*", held)
            assert paths, what
            for path in re.findall(r"`([^`]+)`", held):
                assert (ROOT / path).is_file(), path

"""Which operations read, and what the locks refuse before they are used."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import ConfigError
from fleet.locks import OperationClassifier, SessionLock, TurnRWLock
from fleet.store import Store, open_store


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("read_file", "read"),
        ("get_user", "read"),
        ("list_users", "read"),
        ("write_file", "write"),
        ("reader", "write"),
        ("getaway", "write"),
        ("Read_file", "write"),
        ("forget_user", "write"),
        ("", "write"),
        # It says itself that it does more than get.
        ("get_or_create_user", "write"),
    ],
)
def test_the_name_tells(name: str, expected: str) -> None:
    assert OperationClassifier().classify(name) == expected


def test_what_is_configured_wins() -> None:
    classifier = OperationClassifier({"read_and_forget": "write", "search": "read"})
    assert classifier.classify("read_and_forget") == "write"
    assert classifier.classify("search") == "read"
    assert classifier.classify("read_file") == "read"


def test_a_later_change_of_the_map_changes_nothing() -> None:
    classes = {"search": "read"}
    classifier = OperationClassifier(classes)
    classes["search"] = "nonsense"
    assert classifier.classify("search") == "read"


@pytest.mark.parametrize("value", ["", "Read", "rw", "reads", "none"])
def test_an_unknown_class_is_refused_at_once(value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        OperationClassifier({"read_file": "read", "search": value}, key="tools.files.classes")
    assert "tools.files.classes.search" in str(refused.value)
    assert repr(value) in str(refused.value)


@given(st.text(), st.dictionaries(st.text(), st.sampled_from(["read", "write"])))
def test_every_name_has_a_class(name: str, classes: dict[str, str]) -> None:
    found = OperationClassifier(classes).classify(name)
    assert found == classes.get(name, found)
    assert found in ("read", "write")


@pytest.fixture
def nowhere() -> Store:
    """A store that nothing is asked of."""
    return open_store("redis://127.0.0.1:1/0")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("session", ""),
        ("turn", ""),
        ("ttl_s", 0.0),
        ("ttl_s", -1),
        ("acquire_timeout_s", -0.1),
        ("ttl_s", float("nan")),
    ],
)
def test_a_lock_of_nobody_or_for_no_time_is_refused(
    nowhere: Store, argument: str, value: Any
) -> None:
    given: dict[str, Any] = {"session": "s", "turn": "t", argument: value}
    with pytest.raises(ValueError, match=argument):
        SessionLock(nowhere, **given)
    if argument != "session":
        del given["session"]
        with pytest.raises(ValueError, match=argument):
            TurnRWLock(nowhere, **given)

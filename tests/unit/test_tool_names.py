"""The names by which a model knows the tools of a server."""

from hypothesis import given
from hypothesis import strategies as st

from fleet.tools.mcp.names import NAME, provider_names


def test_what_providers_take_stays() -> None:
    assert provider_names(["read_file", "a-b"]) == {"a-b": "a-b", "read_file": "read_file"}


def test_what_they_do_not_take_is_changed() -> None:
    told = provider_names(["fs.read", "ünï", "", "x" * 65])
    assert told.pop("fs_read") == "fs.read"
    assert told.pop("_n_") == "ünï"
    assert told.pop("_") == ""
    ((name, own),) = told.items()
    assert own == "x" * 65
    assert name.startswith("x" * 55 + "_")


def test_a_changed_name_takes_nobodys_place() -> None:
    told = provider_names(["a.b", "a b", "a_b"])
    assert told["a_b"] == "a_b"
    assert set(told.values()) == {"a.b", "a b", "a_b"}


@given(st.lists(st.text(max_size=80), unique=True))
def test_every_tool_has_one_valid_name_of_its_own(own: list[str]) -> None:
    told = provider_names(own)
    assert sorted(told.values()) == sorted(own)
    assert all(NAME.match(name) for name in told)
    assert provider_names(reversed(own)) == told

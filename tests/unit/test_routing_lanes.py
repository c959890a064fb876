"""A lane is a name for a priority; what a sender leaves out is decided in one place."""

from typing import Any

import pytest

from routing import Event, InvalidEvent

NOW = "2026-11-21T10:00:00Z"
LANES = {"human": 8, "default": 4, "background": 1, "night": 0}


def priority(lanes: dict[str, int] | None = None, **fields: Any) -> int:
    raw = {"text": "x", **fields}
    if lanes is None:
        return Event.parse(raw, new_id="1", now=NOW).priority
    return Event.parse(raw, new_id="1", now=NOW, lanes=lanes).priority


@pytest.mark.parametrize(
    ("fields", "urgency"),
    [
        ({}, 5),
        ({"lane": "human"}, 9),
        ({"lane": "background"}, 0),
        ({"lane": None, "priority": None}, 5),
        ({"lane": "background", "priority": 7}, 7),
        ({"hops": 1}, 0),
        ({"hops": 1, "lane": "default"}, 5),
        ({"hops": 1, "priority": 3}, 3),
    ],
)
def test_how_urgent_an_event_is(fields: dict[str, Any], urgency: int) -> None:
    assert priority(**fields) == urgency


def test_lanes_are_the_configurations() -> None:
    wanted = {"night": 0, "human": 8, "default": 4}
    assert {lane: priority(LANES, lane=lane) for lane in wanted} == wanted
    assert priority(LANES) == 4
    assert priority(LANES, hops=2) == 1


def test_in_a_cloud_event_it_stands_in_the_data_or_beside_it() -> None:
    cloud = {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}
    data = {"text": "x", "lane": "human"}
    assert Event.parse({**cloud, "data": data}, new_id="", now=NOW).priority == 9
    beside = {**cloud, "lane": "background", "data": {"text": "x"}}
    assert Event.parse(beside, new_id="", now=NOW).priority == 0


@pytest.mark.parametrize("lane", ["", "Human", "express", 9, True, ["human"], {"human": 1}])
def test_another_lane_is_refused_and_those_there_are_named(lane: Any) -> None:
    with pytest.raises(InvalidEvent, match="`lane` must be one of background, default, human"):
        priority(lane=lane)
    with pytest.raises(InvalidEvent, match="`lane` must be one of"):
        priority(lane=lane, priority=3)


def test_it_survives_the_way_through_the_store_when_its_lane_is_gone() -> None:
    event = Event.parse({"text": "x", "lane": "night"}, new_id="1", now=NOW, lanes=LANES)
    again = Event.parse(event.to_wire(), new_id="", now=NOW)
    assert (again, again.priority) == (event, 0)

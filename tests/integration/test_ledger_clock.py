"""The ledger's clock under any server's clock, and under any machine that looks at it."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.store import Store, keys
from fleet.store.ledger_clock import ClockCall
from fleet.store.script import script_source

TWO_HOURS_MS = 7_200_000
START_MS = 1_700_000_000_000
TIME = "local clock = redis.call('TIME')"
OWN_TIME = """
local at = redis.call('GET', 'test:raw_ms')
local clock = {math.floor(at / 1000), at % 1000 * 1000}
"""


class World:
    """A server and two machines whose clocks a test moves; all start at the same moment."""

    def __init__(self, store: Store) -> None:
        store.client.flushall()
        self.client: Any = store.client
        source = script_source(ClockCall)
        assert TIME in source
        self._script = self.client.register_script(source.replace(TIME, OWN_TIME))
        self.true_ms = 0
        self.raw_ms = START_MS
        self.halted_ms = [0] * 4

    def passes(self, ms: int) -> None:
        self.true_ms += ms
        self.raw_ms += ms

    def halts(self, machine: int, ms: int) -> None:
        """Time passes, but not for one machine."""
        self.passes(ms)
        self.halted_ms[machine] += ms

    def look(
        self, machine: int = 0, *, there_ms: int = 1, back_ms: int = 1, insists: bool = False
    ) -> bool:
        """A look that is so long on its way."""
        before = self._machine_ms(machine)
        self.passes(there_ms)
        server = self.raw_ms
        self.passes(back_ms)
        self.client.set("test:raw_ms", self.raw_ms)
        call = ClockCall(
            machine=f"machine {machine}",
            before_ms=before,
            after_ms=self._machine_ms(machine),
            server_ms=server,
            insists="1" if insists else "",
        )
        return bool(self._script(args=call.args()))

    @property
    def ledger_ms(self) -> int:
        """The ledger's time since the start."""
        offset = int(self.client.hget(keys.CLOCK, "offset") or 0)
        return self.raw_ms + offset - START_MS

    @property
    def error_ms(self) -> int:
        """How far it is ahead of the true one."""
        return self.ledger_ms - self.true_ms

    def _machine_ms(self, machine: int) -> int:
        return 1_000_000 * (machine + 1) + self.true_ms - self.halted_ms[machine]


@pytest.fixture
def world(store: Store) -> Iterator[World]:
    made = World(store)
    assert made.look(0)
    assert made.look(1)
    yield made
    made.client.delete("test:raw_ms")


@pytest.mark.parametrize("step", [TWO_HOURS_MS, -TWO_HOURS_MS])
def test_two_machines_take_one_step_back_once(world: World, step: int) -> None:
    world.raw_ms += step
    world.passes(500)
    for machine in (0, 1, 0, 1):
        assert world.look(machine)
        assert abs(world.error_ms) < 200


@pytest.mark.parametrize("step", [TWO_HOURS_MS, -TWO_HOURS_MS])
def test_a_step_while_nobody_calls(world: World, step: int) -> None:
    world.passes(60_000)
    world.raw_ms += step
    world.passes(60_000)
    assert world.look(1)
    assert abs(world.error_ms) < 10_000


def test_a_silence_is_no_step(world: World) -> None:
    world.passes(TWO_HOURS_MS)
    assert world.look(0)
    assert world.error_ms == 0


def test_a_late_answer_is_no_step(world: World) -> None:
    """As that of a broker that was stopped for a while."""
    world.passes(3_000)
    assert world.look(0, there_ms=20_000, back_ms=1)
    assert world.error_ms == 0
    world.passes(10_000)
    assert world.look(0, there_ms=1, back_ms=4_000)
    assert world.error_ms == 0


def test_a_step_during_a_look_is_taken_back_by_the_next(world: World) -> None:
    world.passes(6_000)
    before = world.raw_ms
    world.raw_ms += TWO_HOURS_MS
    world.client.set("test:raw_ms", world.raw_ms)
    call = ClockCall(
        machine="machine 0", before_ms=1_006_000, after_ms=1_006_001, server_ms=before, insists=""
    )
    assert not world._script(args=call.args())
    assert world.look(0)
    assert abs(world.error_ms) < 200


def test_a_machine_that_was_halted_moves_nothing(world: World) -> None:
    for _ in range(30):
        world.halts(1, 4_000)
        assert world.look(0)
    world.halts(1, 6_000)
    assert not world.look(1), "its clock stood still"
    assert world.look(0)
    assert world.error_ms == 0


def test_a_machine_that_knows_nothing_waits_for_another(world: World) -> None:
    world.raw_ms += TWO_HOURS_MS
    assert not world.look(2)
    assert world.look(0)
    assert world.look(2)
    assert abs(world.error_ms) < 200


def test_nobody_knows(world: World) -> None:
    """As after a boot of the only machine: forth is believed, back never."""
    world.raw_ms += TWO_HOURS_MS
    assert world.look(2, insists=True)
    assert world.error_ms == TWO_HOURS_MS
    world.raw_ms -= TWO_HOURS_MS
    world.passes(10_000)
    assert world.look(3, insists=True)
    assert world.error_ms >= TWO_HOURS_MS - 10_100


def test_times_become_the_worlds_again(world: World) -> None:
    world.raw_ms += TWO_HOURS_MS
    assert world.look(0)
    for _ in range(100):
        world.passes(60_000)
        assert world.look(0)
    # Two in a hundred.
    assert 115_000 < world.error_ms < 130_000


def test_machines_that_are_gone_are_forgotten(world: World) -> None:
    world.passes(4_000_000)
    assert world.look(1)
    assert world.look(2)
    assert set(world.client.hkeys(keys.CLOCK)) == {
        "raw",
        "offset",
        "shrunk",
        "machine 1",
        "machine 2",
    }


def test_steps_back_and_forth_while_an_offset_goes_back_to_zero(world: World) -> None:
    """A shrinking offset is no time that the other machine saw pass."""
    for step, machine in ((-TWO_HOURS_MS, 0), (0, 0), (-TWO_HOURS_MS, 1)):
        world.raw_ms += step
        if not step:
            world.passes(102_348)
        assert world.look(machine)
    world.raw_ms += TWO_HOURS_MS
    assert not world.look(2), "it knows nothing"
    assert world.look(0)
    assert abs(world.error_ms) < 10_000


MACHINES = st.integers(0, 2)
#: Each acts on the world before a machine looks, which waits for others where it knows nothing.
ACTS = st.one_of(
    st.tuples(st.just("passes"), st.integers(0, 4_500)),
    st.tuples(st.just("silence"), st.integers(6_000, 600_000)),
    st.tuples(st.just("halts"), st.integers(0, 4_500)),
    st.tuples(st.just("late"), st.integers(0, 8_000)),
    st.tuples(st.just("step"), st.sampled_from([-TWO_HOURS_MS, -60_000, 60_000, TWO_HOURS_MS])),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(ACTS, MACHINES), max_size=40))
def test_whatever_happens_the_ledgers_time_goes_on(
    store: Store, story: list[tuple[tuple[str, int], int]]
) -> None:
    """At about the true pace, and never back; the third machine comes late."""
    world = World(store)
    assert world.look(0)
    assert world.look(1)
    steps, newest_ms = 0, world.ledger_ms
    for (act, ms), machine in story:
        late = 0
        if act == "step":
            world.raw_ms += ms
            steps += 1
        elif act == "halts":
            world.halts(machine, ms)
        elif act == "late":
            late = ms
        else:
            world.passes(ms)
        if not world.look(machine, there_ms=1 + late):
            assert world.look(1 - machine if machine < 2 else 0) or world.look(0, insists=True)
        assert world.ledger_ms >= newest_ms
        newest_ms = world.ledger_ms
        assert abs(world.error_ms) < world.true_ms * 0.05 + 15_000 * (1 + steps)
    store.client.delete("test:raw_ms")

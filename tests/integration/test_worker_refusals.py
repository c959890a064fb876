"""A worker that could not keep the guarantees says so in one sentence and does not start."""

from collections.abc import Iterator

import pytest

from tests.fixtures.fleet import CELERY, Fleet, Process, fleet_of

WORKER = (str(CELERY), "-A", "fleet", "worker", "-l", "INFO")
ONE_ONLY = (
    "fleet: a worker serves one agent or one pool and nothing else; start it with -Q agent.NAME or "
    "-Q pool.NAME."
)

REFUSED = {
    "a pool without limits": (
        ("-Q", "agent.a", "-c", "1", "-P", "solo"),
        "fleet: the solo pool cannot enforce time limits; start it with -P prefork.",
    ),
    "another pool without limits": (
        ("-Q", "agent.a", "-c", "1", "-P", "threads"),
        "fleet: the thread pool cannot enforce time limits; start it with -P prefork.",
    ),
    "two at a time": (
        ("-Q", "agent.a", "-c", "2"),
        "fleet: an agent runs one dispatch at a time; start the worker with -c 1.",
    ),
    "two agents": (
        ("-Q", "agent.a,agent.b", "-c", "1"),
        ONE_ONLY,
    ),
    "an agent and more": (
        ("-Q", "agent.a,intake", "-c", "1"),
        ONE_ONLY,
    ),
    "an agent and its pool": (
        ("-Q", "agent.a,pool.p", "-c", "3"),
        ONE_ONLY,
    ),
    "an agent of a pool": (
        ("-Q", "agent.c", "-c", "1"),
        "fleet: c is in the pool p; start that with -Q pool.p.",
    ),
    "a pool with other processes": (
        ("-Q", "pool.p", "-c", "2"),
        "fleet: pools.p.processes is 3; start the worker with -c 3.",
    ),
    "a pool that nobody knows": (
        ("-Q", "pool.nobody", "-c", "2"),
        "fleet: 'nobody' is no pool of this fleet that has an agent.",
    ),
    "a pool of threads": (
        ("-Q", "pool.p", "-c", "3", "-P", "threads"),
        "fleet: the thread pool cannot enforce time limits; start it with -P prefork.",
    ),
    "an agent that nobody knows": (
        ("-Q", "agent.nobody", "-c", "1"),
        "fleet: 'nobody' is not an agent of this fleet; see `fleet agents`.",
    ),
}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Process]]:
    """All of them at once, because each takes seconds to say no."""
    folder, agents = tmp_path_factory.mktemp("fleet"), {"a": {}, "b": {}, "c": {"pool": "p"}}
    with fleet_of(folder, agents, sections={"pools.p": {"processes": 3}}) as fleet:
        yield {case: fleet.start("w", *WORKER, *argv) for case, (argv, _) in REFUSED.items()}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(case: str, started: dict[str, Process]) -> None:
    assert started[case].wait(40) == 1
    said = [line for line in started[case].said().splitlines() if "fleet: " in line]
    assert said == [REFUSED[case][1]]
    assert "Traceback" not in started[case].said()


def test_a_worker_of_the_shared_queues_may_do_as_it_likes(
    started: dict[str, Process], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with fleet_of(tmp_path_factory.mktemp("fleet"), {"a": {}}) as fleet:
        more(fleet).wait_said(" ready.")


def more(fleet: Fleet) -> Process:
    return fleet.start("shared", *WORKER, "-Q", "intake,maintenance", "-c", "2", "-P", "threads")

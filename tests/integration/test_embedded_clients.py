"""Clients of the embedded broker: in any folder, over its restarts, and telling no password."""

import multiprocessing
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from celery import Celery
from kombu import Connection

from fleet.config.settings import Settings, load
from fleet.errors import BrokerUnavailable
from fleet.formats.redaction import mask_url
from fleet.store import Store, open_store
from fleet.store.address import broker_url, plain_url, store_url
from fleet.store.connection import reachable
from tests.fixtures.brokers import Make, make, orphan, sigkill
from tests.fixtures.processes import no_leftovers, wait_until

__all__ = ["make", "no_leftovers", "orphan"]

#: Celery's own call of redis-py.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

QUEUE = "a.queue"


@pytest.fixture
def fleet_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Settings]]:
    """Makes this process one of a fleet on a data folder."""

    def settings(data_dir: Path) -> Settings:
        monkeypatch.setenv("FLEET_DATA_DIR", str(data_dir))
        load.cache_clear()
        return load()

    yield settings
    load.cache_clear()


def pings(store: Store) -> bool:
    with reachable():
        return bool(store.client.ping())


def queue_holds(url: str, text: str) -> bool:
    """True when a message that kombu sends comes back."""
    with Connection(url) as connection, connection.SimpleQueue(QUEUE) as queue:
        queue.put(text)
        message = queue.get(timeout=5)
        message.ack()
        return bool(message.payload == text)


def create_app(settings: Settings) -> Celery:
    """The fleet's app; its module asks for a broker when it is imported."""
    made: Celery = import_module("fleet.celery").create_app(settings)
    return made


def result_comes_back(app: Celery) -> bool:
    app.backend.store_result("an-id", "a result", "SUCCESS")
    return bool(app.AsyncResult("an-id").get(timeout=5) == "a result")


NAMES = {
    "short": "plain",
    "odd": """it's "quoted" \\ 100 % größer? #1""",
    "deep": "/".join(["long" * 50] * 6) + """/it's "quoted" \\ 100 % größer? #1""",
}


@pytest.mark.parametrize("name", NAMES)
def test_any_folder_will_do_for_every_client(
    make: Make, tmp_path: Path, fleet_in: Callable[[Path], Settings], name: str
) -> None:
    settings = fleet_in(tmp_path / NAMES[name])
    make(settings.data_dir).start()

    store = open_store(store_url(settings))
    assert pings(store)
    assert queue_holds(broker_url(settings), "a text")
    assert queue_holds(plain_url(settings), "a text")
    assert result_comes_back(create_app(settings))

    child = multiprocessing.get_context("fork").Process(target=pings, args=[store])
    child.start()
    child.join(10)
    assert child.exitcode == 0


def test_a_folder_too_deep_for_a_socket_is_named_where_there_is_no_way_round(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.broker.endpoint._OPENED", tmp_path / "nowhere")
    with pytest.raises(BrokerUnavailable, match=r"longer than a socket's.*fleet\.data_dir"):
        make(tmp_path / NAMES["deep"]).start()


def test_clients_of_before_follow_to_the_next_start(
    make: Make, tmp_path: Path, fleet_in: Callable[[Path], Settings]
) -> None:
    """A worker in another shell, say: it lived on while the fleet was stopped."""
    settings = fleet_in(tmp_path)
    broker = make()
    broker.start()
    store, app, url = open_store(store_url(settings)), create_app(settings), broker_url(settings)
    known = plain_url(settings)
    with Connection(url) as connection:
        connection.ensure_connection(max_retries=1)
        assert pings(store)
        assert result_comes_back(app)

        broker.stop()
        with pytest.raises(BrokerUnavailable, match="does not answer"):
            pings(store)
        make().start()

        assert plain_url(settings) != known
        assert pings(store)
        assert result_comes_back(app)
        connection.ensure_connection(max_retries=1)
    assert queue_holds(url, "a text")


@pytest.mark.parametrize("kept_by", ["started", "adopted"])
def test_a_server_that_dies_beneath_its_clients_comes_back_with_its_password(
    request: pytest.FixtureRequest,
    make: Make,
    tmp_path: Path,
    fleet_in: Callable[[Path], Settings],
    kept_by: str,
) -> None:
    """Flower knows it by heart."""
    if kept_by == "adopted":
        request.getfixturevalue("orphan")
    settings = fleet_in(tmp_path)
    broker = make()
    before = broker.start()
    assert broker.adopted == (kept_by == "adopted")
    known = plain_url(settings)
    sigkill(broker)

    broker.start()
    assert (plain_url(settings), broker.pid != before.pid) == (known, True)


def test_a_password_that_cannot_be_read_is_named_and_asked_for_again(
    make: Make, tmp_path: Path, fleet_in: Callable[[Path], Settings]
) -> None:
    settings = fleet_in(tmp_path)
    make().start()
    store = open_store(store_url(settings))
    file = tmp_path / "broker" / "password"
    right = file.read_text()
    file.write_text("garbage")
    with pytest.raises(BrokerUnavailable, match="password is damaged"):
        pings(store)
    file.write_text(right)
    wait_until(lambda: pings(store))


def test_what_is_shown_holds_no_password(
    make: Make, tmp_path: Path, fleet_in: Callable[[Path], Settings]
) -> None:
    settings = fleet_in(tmp_path)
    make().start()
    password = (tmp_path / "broker" / "password").read_text()
    socket = tmp_path / "broker" / "server.sock"
    shown = mask_url(plain_url(settings))
    assert shown == f"redis+socket://***@{socket}?virtual_host=0"
    with Connection(broker_url(settings)) as connection:
        assert password not in connection.as_uri() + repr(connection)
    assert password not in str(create_app(settings).backend.as_uri(include_password=False))

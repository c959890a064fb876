"""The embedded broker in trouble: torn files, full disks, taken ports, hung or wrong servers."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from fleet.broker import server
from fleet.broker.embedded import read_endpoint
from fleet.errors import BrokerUnavailable
from tests.fixtures.brokers import (
    Make,
    append_only_file,
    connect,
    make,
    orphan,
    sigkill,
    stranger,
)
from tests.fixtures.processes import no_leftovers, wait_until

__all__ = ["make", "no_leftovers", "orphan"]


def test_a_hung_server_is_named_and_not_joined_by_a_second(
    orphan: int, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(server, "CLIENT_TIMEOUT_S", 0.1)
    os.kill(orphan, signal.SIGSTOP)
    try:
        with pytest.raises(BrokerUnavailable, match=rf"held by a process \({orphan}\)"):
            make().start()
    finally:
        os.kill(orphan, signal.SIGCONT)
    make().start()


@pytest.mark.parametrize("damage", ["", "garbage", "[1]", '{"pid": "x"}'])
def test_a_damaged_endpoint_file_is_set_aside_and_the_server_found(
    orphan: int, make: Make, tmp_path: Path, damage: str
) -> None:
    (tmp_path / "broker" / "endpoint.json").write_text(damage)
    with pytest.raises(BrokerUnavailable, match="nothing says as which process"):
        read_endpoint(tmp_path)
    (kept,) = (tmp_path / "broker").glob("endpoint.json.damaged-*")
    assert kept.read_text() == damage
    broker = make()
    broker.start()
    assert (broker.adopted, broker.pid) == (True, orphan)
    # And when it is lost under a living fleet, that writes it again.
    (tmp_path / "broker" / "endpoint.json").unlink()
    broker.republish()
    assert read_endpoint(tmp_path) == broker.start()


def test_a_damaged_password_is_set_aside_and_costs_nothing(make: Make, tmp_path: Path) -> None:
    broker = make()
    broker.start()
    with connect(tmp_path) as client:
        client.set("kept", "yes")
    password = tmp_path / "broker" / "password"
    password.write_bytes(b"\xff\x00")
    with pytest.raises(BrokerUnavailable, match="password is damaged"):
        read_endpoint(tmp_path)
    broker.stop()
    make().start()
    with connect(tmp_path) as client:
        assert client.get("kept") == "yes"
    assert len(list(tmp_path.glob("broker/password.damaged-*"))) == 1


def test_a_torn_tail_costs_the_torn_command_only(make: Make, tmp_path: Path) -> None:
    broker = make()
    broker.start()
    with connect(tmp_path) as client:
        for number in range(100):
            client.rpush("list", number)
    sigkill(broker)
    file = append_only_file(tmp_path)
    os.truncate(file, file.stat().st_size - 7)

    broker.start()
    with connect(tmp_path) as client:
        assert client.lrange("list", 0, -1) == [str(number) for number in range(99)]


def test_a_broken_file_is_reported_with_the_servers_own_words(make: Make, tmp_path: Path) -> None:
    broker = make()
    broker.start()
    sigkill(broker)
    with append_only_file(tmp_path).open("ab") as file:
        file.write(b"nonsense\r\n" * 10)

    with pytest.raises(BrokerUnavailable, match=r"Bad file format.*server\.log"):
        broker.start()
    assert not broker.alive()


def test_loading_may_take_longer_than_the_patience_for_a_silent_server(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = make()
    broker.start()
    sigkill(broker)
    commands = 3_000_000
    with append_only_file(tmp_path).open("ab") as file:
        file.write(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n")
        file.write(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n" * commands)
    monkeypatch.setattr(server, "TIMEOUT_S", 0.4)

    broker.start()
    with connect(tmp_path) as client:
        assert client.get("n") == str(commands)


@pytest.fixture
def small_disk(tmp_path: Path, no_leftovers: str) -> Iterator[Path]:
    """A file system of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", disk],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a tmpfs (root on Linux)")
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill(disk: Path) -> Path:
    """Take all the room that is left; removing the file gives it back."""
    filler = disk / "filler"
    with filler.open("wb", 0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert not shutil.disk_usage(disk).free
    return filler


def test_a_full_disk_is_named_and_costs_nothing_that_was_acknowledged(
    small_disk: Path, make: Make
) -> None:
    broker = make(small_disk)
    broker.start()
    acknowledged = 0
    filler = fill(small_disk)
    with connect(small_disk) as client, suppress(redis.ConnectionError):
        while True:
            client.rpush("list", "x" * 500)
            acknowledged += 1
    wait_until(lambda: not broker.alive())

    with pytest.raises(BrokerUnavailable, match=r"No space left|disk is full"):
        broker.start()

    filler.unlink()
    broker.start()
    with connect(small_disk) as client:
        assert client.llen("list") == acknowledged
    broker.stop()


def test_a_disk_full_from_the_beginning_is_named(small_disk: Path, make: Make) -> None:
    fill(small_disk)
    with pytest.raises(BrokerUnavailable, match="No space left"):
        make(small_disk).start()


def test_a_folder_that_cannot_be_made_is_named(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerUnavailable, match=r"Not a directory.*fleet\.data_dir"):
        make(tmp_path / "file").start()


def test_a_configured_port_in_use_is_refused(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerUnavailable, match=rf"port {port} .*fleet\.broker_tcp"):
            make(port=port).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to give a folder away (root)")
def test_a_folder_that_another_user_made_is_refused(make: Make, tmp_path: Path) -> None:
    """Its owner could read the password, and listen in the server's place."""
    (tmp_path / "broker").mkdir()
    os.chown(tmp_path / "broker", 12345, 12345)
    with pytest.raises(BrokerUnavailable, match=r"belongs to another user.*fleet\.data_dir"):
        make().start()


def test_a_socket_that_a_killed_server_left_is_in_nobodys_way(make: Make, tmp_path: Path) -> None:
    broker = make()
    broker.start()
    sigkill(broker)
    assert (tmp_path / "broker" / "server.sock").is_socket()
    with pytest.raises(redis.ConnectionError), stranger(tmp_path) as client:
        client.ping()

    make().start()
    with connect(tmp_path) as client:
        assert client.ping()


def test_a_wrong_server_is_refused_before_anything_is_started(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLEET_REDIS_SERVER", str(tmp_path / "nowhere"))
    with pytest.raises(BrokerUnavailable, match=r"nowhere does not run here \(No such file"):
        make().start()

"""The audit of a real server."""

from pathlib import Path

from fleet.broker.audit import audit
from tests.fixtures.brokers import Make, connect, make, stranger
from tests.fixtures.processes import no_leftovers

__all__ = ["make", "no_leftovers"]


def test_the_audit_reads_a_real_server_and_changes_nothing(make: Make, tmp_path: Path) -> None:
    make().start()
    with connect(tmp_path) as client:
        assert [finding.level for finding in audit(client)] == ["info"]

        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendonly", "no")
        client.replicaof("127.0.0.1", "1")
        before = client.config_get("*")
        found = {finding.what.partition(" ")[0]: finding.level for finding in audit(client)}

        assert found["maxmemory-policy"] == "error"
        assert found["the"] == "error"
        assert found["AOF"] == "warning"
        assert client.config_get("*") == before


def test_a_server_that_hides_its_options_is_audited_without_them(
    make: Make, tmp_path: Path
) -> None:
    make().start()
    with connect(tmp_path) as client:
        client.acl_setuser("guest", enabled=True, nopass=True, commands=["+info"])
    with stranger(tmp_path, "guest") as client:
        assert [finding.level for finding in audit(client)] == ["warning", "info"]

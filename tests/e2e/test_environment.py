"""`fleet up` beside another Celery project whose variables are set."""

from pathlib import Path

import redis

from tests.e2e.running import place
from tests.fixtures.containers import free_port
from tests.fixtures.valkey import Valkey


def test_the_broker_of_another_project_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    server = Valkey(tmp_path / "elsewhere").start()
    here = tmp_path / "here"
    here.mkdir()
    others = {
        **dict.fromkeys(("BROKER_URL", "RESULT_BACKEND", "CELERY_BROKER_URL"), server.url),
        **dict.fromkeys(("CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"), server.url),
        **dict.fromkeys(("CELERY_RESULT_BACKEND", "CELERY_BROKER"), server.url),
        **dict.fromkeys(("APP", "CELERY_APP", "CELERY_CONFIG_MODULE"), "not_there"),
        "CELERY_LOADER": "not_there:Loader",
        "CELERY_TRACE_APP": "1",
        "CELERY_VERSION": "1",
        "CELERY_WORKDIR": "/",
        "CELERY_WORKER_POOL": "solo",
        "CELERY_WORKER_QUEUES": "celery",
        # As Kubernetes does beside Services named `fleet` and `fleet-api`.
        "FLEET_SERVICE_HOST": "10.0.0.1",
        "FLEET_SERVICE_PORT": "80",
        "FLEET_PORT": "tcp://10.0.0.1:80",
        "FLEET_API_PORT": "tcp://10.0.0.2:8700",
    }
    agents = '[agents.archie]\nmodel = "echo/brief"\n[agents.gem]\nmodel = "echo/brief"\n'
    config = f"[api]\nport = 0\n[flower]\nport = {free_port()}\n{agents}"
    with redis.Redis(port=server.port) as client, place(here, config, others) as found:
        before = int(client.info("stats")["total_connections_received"])
        found.up()
        assert found.outcome("say hello", "--to", "archie")["state"] == "completed"
        health = found.fleet("health", "--json").json
        assert health["status"] == "ok"
        assert all(row["consuming"] for row in health["g2"]["agents"].values())
        told = found.fleet("doctor", "--json").json["findings"]
        (celery,) = [row["what"] for row in told if "CELERY_BROKER_URL" in row["what"]]
        (service,) = [row["what"] for row in told if "FLEET_SERVICE_HOST" in row["what"]]
        assert "CELERY_WORKER_POOL" in celery
        assert "FLEET_API_PORT" in service
        assert found.stop() == 0
        assert int(client.info("stats")["total_connections_received"]) == before
    server.kill()

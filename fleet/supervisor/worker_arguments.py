"""The command lines of Celery workers."""

from fleet.config.settings import Settings

#: Gossip and mingle cost the square of the workers and serve nothing here; a rare heartbeat is
#: enough for Flower.
QUIET = ("--without-mingle", "--without-gossip", "--heartbeat-interval", "20")


def worker_argv(settings: Settings, queue: str, log_level: str = "WARNING") -> list[str]:
    """The arguments of the Celery worker of an agent or a pool, `celery` first."""
    return [
        "celery",
        "worker",
        "-Q",
        queue,
        "-c",
        str(settings.processes(queue)),
        "-n",
        f"{queue.removeprefix('agent.')}@%h",
        "-P",
        "prefork",
        *QUIET,
        "-l",
        log_level,
    ]

"""The imports of a host, done once for all the workers that it forks."""

import gc
import importlib
import threading
from collections.abc import Sequence
from contextlib import suppress

from fleet.config.settings import Settings
from fleet.errors import FleetError

#: Imported by name, because `fleet` knows nothing of `tasks`; the model adapter is
#: loaded by `tasks.execution.preload`.
PRELOAD = (
    "celery.apps.worker",
    "celery.bin.base",
    "celery.bin.worker",
    "celery.concurrency.prefork",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.control",
    "celery.worker.pidbox",
    "celery.worker.strategy",
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.app.trace",
    "celery.backends.redis",
    "celery.events.state",
    "celery.fixups.django",
    "celery.loaders.app",
    "kombu.pidbox",
    "kombu.pools",
    "kombu.transport.redis",
    "billiard.popen_fork",
    "billiard.sharedctypes",
    "billiard.synchronize",
    "fleet.worker.commands",
    "fleet.worker.pool_step",
    "fleet.worker.no_delayed_delivery",
    "fleet.worker.reaper",
    "fleet.worker.reconnect",
    "fleet.worker.remote_control",
    "fleet.worker.celery_requests",
    "fleet.worker.task_events",
    "fleet.worker.bootsteps",
    "tasks.dispatch",
    "tasks.intake",
    "tasks.maintenance",
    "tasks.runners.llm",
    "tasks.runners.python",
)


def preload(settings: Settings, agents: Sequence[str], *, anew: bool = False) -> None:
    """Import what the workers of `agents` need, and freeze it.

    `anew` makes another Celery app, for changed settings. Raises FleetError where a thread runs:
    each fork would inherit the locks that it holds.
    """
    # Imports make objects that stay, and hardly any garbage: collecting takes a tenth of the time.
    gc.disable()
    for name in PRELOAD:
        importlib.import_module(name)
    module = importlib.import_module("fleet.celery")
    if anew:
        module.app = module.create_app(settings)  # type: ignore[attr-defined]
    app = module.app
    app.loader.import_default_modules()
    app.finalize()
    # Reads the entry points of every package installed, and is kept.
    _ = app.backend
    # Makes the parser of C with which each pool's child sets this signal.
    with suppress(OSError):
        importlib.import_module("billiard.util").get_pdeathsig()
    # Seconds of imports, which only agents with a model need.
    of_models = importlib.import_module("tasks.execution.preload").preload
    of_models([settings.agents[name] for name in agents])
    if any(settings.uses_tool_servers(name) for name in agents):
        importlib.import_module("fleet.tools.mcp.server")
    if threading.active_count() > 1:
        raise FleetError(f"A host must fork from one thread; running are {threading.enumerate()}.")
    gc.freeze()
    gc.enable()

"""A Celery app that goes by the fleet's settings alone, whatever the environment holds for others.

Celery lets variables win over an app's settings: `CELERY_BROKER_URL` of another project would send
every worker to that project's broker. They are not taken out of the environment, because what a
turn runs may belong to that project.
"""

from importlib import import_module
from typing import Any

import click
from celery import Celery
from celery.app.log import Logging
from celery.app.utils import Settings as CelerySettings
from celery.loaders.app import AppLoader
from click.core import ParameterSource

from fleet.broker.tls import TlsConnection
from fleet.errors import ConfigError

#: Options of `celery` by which it would go elsewhere, and what to set instead.
_REFUSED = {
    "broker": "fleet.broker_url",
    "result_backend": "fleet.store_url",
    "loader": "nothing",
    "config": "fleet.toml",
}


class OwnSettings(CelerySettings):
    """Celery's settings, where the environment has no say."""

    broker_url = property(lambda self: self.get("broker_url"))
    broker_read_url = broker_url
    broker_write_url = broker_url
    result_backend = property(lambda self: self.get("result_backend"))


class OwnLoader(AppLoader):
    """Celery's loader of tasks, which reads no module of settings."""

    def read_configuration(self, env: str = "") -> dict[str, Any]:
        """Nothing."""
        return {}

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> Any:
        """A module by its name. Celery would look into the working directory first."""
        return self.import_module(module, package=package)


def celery_app(name: str, *, broker: str, log: type[Logging] = Logging, **settings: Any) -> Celery:
    """A new app under `settings`, which are Celery's."""
    # By name, because Celery looks into it.
    loader = f"{OwnLoader.__module__}:{OwnLoader.__name__}"
    # No fixups: one sets up the Django project that DJANGO_SETTINGS_MODULE names.
    app = Celery(name, broker=broker, loader=loader, log=log, fixups=[], set_as_current=False)
    # Celery makes them itself, and takes a plain assignment for a setting of that name.
    object.__setattr__(app.conf, "__class__", OwnSettings)
    app.conf.update(settings)
    if broker.startswith("rediss://"):
        import_module("kombu.transport.redis").Channel.connection_class_ssl = TlsConnection
    return app


def keep_command_line_out() -> None:
    """When `celery` imports us: its subcommands' options are those that were typed.

    Raises ConfigError when it was asked to go elsewhere.
    """
    context = click.get_current_context(silent=True)
    if context is None or context.auto_envvar_prefix != "CELERY":
        return
    context.auto_envvar_prefix = None
    for option, instead in _REFUSED.items():
        if context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
            raise ConfigError(
                f"--{option.replace('_', '-')}: set {instead} instead; this option has no effect "
                "on the fleet."
            )

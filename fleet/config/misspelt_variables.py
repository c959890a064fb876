"""Variables `FLEET_...` that are nearly one of ours, and so a mistake."""

import os
from collections.abc import Iterator, Mapping

from pydantic.fields import FieldInfo

from fleet.config.checks import shown
from fleet.config.foreign_environment import PREFIX, is_of_service, not_settings
from fleet.errors import ConfigError
from routing.nearest_name import nearest

#: The settings by name.
Fields = Mapping[str, FieldInfo]

#: A variable less like one of ours is somebody else's.
_OURS = 0.78


def check_variables(settings: Fields) -> None:
    """Raise ConfigError for a variable that is nearly one of ours; others are passed over."""
    for variable in not_settings(settings):
        meant = _meant(variable, settings)
        if meant is not None and not is_of_service(variable, os.environ[variable]):
            raise ConfigError(
                f"{shown(variable)}: no setting has this name; did you mean {shown(meant)}? "
                "Correct or unset it."
            )


def _meant(variable: str, settings: Fields) -> str | None:
    name = variable.removeprefix(PREFIX)
    section, nested, key = name.partition("__")
    if nested and (meant := nearest(section, settings, _OURS)):
        return f"{PREFIX}{meant.upper()}__{key}"
    known = (one.removeprefix(PREFIX) for one in _variables(settings))
    meant = nearest(name, known, _OURS)
    return meant and PREFIX + meant


def _variables(settings: Fields) -> Iterator[str]:
    """The settings as the environment names them, those of the sections one level down."""
    for name, field in settings.items():
        yield f"FLEET_{name.upper()}"
        for key in getattr(field.annotation, "model_fields", ()):
            yield f"FLEET_{name.upper()}__{key.upper()}"

"""Settings from a dictionary, as a notebook's parameters give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, TypeVar

from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.generation.gan import GANSettings
from imgrec_lib.generation.preference import PreferenceSettings

Settings = TypeVar("Settings", GANSettings, PreferenceSettings)


def with_options(settings: Settings, options: Mapping[str, Any]) -> Settings:
    """The same settings with some replaced.

    Args:
        settings: what is not replaced.
        options: values by name; whole numbers pass as floats, lists as tuples.

    Raises:
        InputError: an unknown name (with a suggestion), or a value of another type.
    """
    known = asdict(settings)
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise unknown_name(f"option of {type(settings).__name__}", name, known)
        wanted = type(known[name])
        if wanted is float and type(value) is int:
            value = float(value)
        if wanted is tuple and isinstance(value, list):
            value = tuple(value)
        if type(value) is not wanted:
            raise InputError(
                f"option {name!r} of {type(settings).__name__} must be {wanted.__name__}, like {known[name]!r}, "
                f"not {value!r}."
            )
        values[name] = value
    return replace(settings, **values)

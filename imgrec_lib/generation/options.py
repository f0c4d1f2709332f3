"""Settings from a dictionary, as a notebook's parameters give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from imgrec_lib.generation.gan import GANSettings
from imgrec_lib.generation.preference import PreferenceSettings
from imgrec_lib.options import check_options, options_of

Settings = TypeVar("Settings", GANSettings, PreferenceSettings)


def with_options(settings: Settings, options: Mapping[str, Any]) -> Settings:
    """The same settings with some replaced.

    Args:
        settings: what is not replaced.
        options: values by name; whole numbers pass as floats, lists as tuples.

    Raises:
        InputError: an unknown name (with a suggestion), or a value of another type.
    """
    return replace(settings, **check_options(type(settings).__name__, options_of(type(settings)), options, "option"))

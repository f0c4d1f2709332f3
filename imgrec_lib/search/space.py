"""What a search may try: spaces as they are written, checked against the model, and as Optuna's distributions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from imgrec_lib.errors import InputError, shown
from imgrec_lib.models import model_card, parameter_options, resolve_profile
from imgrec_lib.models.base import Range, Space
from imgrec_lib.options import admits, check_options, options_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

PLAIN = (str, int, float, bool, type(None))
"""Types of the values that a search may choose from: those that its journal keeps."""


def space_of(model: str, profile: str = "default") -> Space:
    """The space that is searched where none is given: the card's, around the profile "default"; else an empty one."""
    return model_card(model).space if profile == "default" else {}


def read_space(owner: str, values: Mapping[str, Any]) -> dict[str, list[Any] | Range]:
    """A space as people write it: lists of values, and mappings with `low`, `high` and perhaps `log` for ranges.

    Args:
        owner: whose it is, for the sentence ("the space of vbpr in m.yaml").
        values: by the name of the hyper-parameter or setting of training.

    Raises:
        InputError: neither a list of values nor a range.
    """
    found: dict[str, list[Any] | Range] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            checked = check_options(f"{name!r} in {owner}", options_of(Range), value, "key")
            if not {"low", "high"} <= checked.keys():
                raise InputError(f"{name!r} in {owner} must have 'low' and 'high', such as {{low: 1e-4, high: 0.1}}.")
            # Whole numbers stay whole: they say that the hyper-parameter is one.
            found[name] = Range(value["low"], value["high"], checked.get("log", False))
        elif isinstance(value, list) and value:
            found[name] = value
        else:
            raise InputError(
                f"{name!r} in {owner} must be a list of values, or a range with 'low' and 'high', not {shown(value)}."
            )
    return found


def check_space(model: str, profile: str, space: Space) -> None:
    """Refuse a space that is not one of the model's.

    Raises:
        InputError: an unknown hyper-parameter, a value or an end of a range that it cannot have, a range that is empty
            or, on a logarithmic scale, does not begin above 0.
    """
    for name, values in space.items():
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            resolve_profile(model, profile, **{name: value})
            if not isinstance(value, PLAIN):
                raise InputError(f"a search of {model} cannot choose {name!r} from {shown(value)}: give plain values.")
        if isinstance(values, Range):
            if not values.low < values.high:
                raise InputError(f"the range of {name!r} of {model} must have 'low' below 'high'.")
            if values.log and values.low <= 0:
                raise InputError(f"the range of {name!r} of {model} begins at {values.low}, which has no logarithm.")


def distributions(model: str, profile: str, space: Space) -> dict[str, BaseDistribution]:
    """A space as Optuna's distributions; the range of a hyper-parameter that is a whole number has these alone."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    options = parameter_options(model, profile)
    found: dict[str, BaseDistribution] = {}
    for name, values in space.items():
        if not isinstance(values, Range):
            found[name] = CategoricalDistribution(values)
        elif admits(options[name].type, float):
            found[name] = FloatDistribution(values.low, values.high, log=values.log)
        else:
            found[name] = IntDistribution(int(values.low), int(values.high), log=values.log)
    return found


def combinations(space: Space) -> int | None:
    """How many configurations a space has; None where a range makes them countless."""
    if any(isinstance(values, Range) for values in space.values()):
        return None
    return math.prod(len(values) for values in space.values() if not isinstance(values, Range))


def own_values(model: str, profile: str, space: Space) -> dict[str, Any] | None:
    """The profile's own values of what a space varies, where the space has all of them; else None."""
    resolved = resolve_profile(model, profile)
    found: dict[str, Any] = {}
    for name, values in space.items():
        at, _, setting = name.partition("_")
        if name in resolved.parameters:
            value = resolved.parameters[name]
        elif at.startswith("phase") and at[5:].isdigit():
            value = getattr(resolved.phases[int(at[5:]) - 1], setting)
        else:
            value = getattr(resolved.phases[0], name)
        inside = values.low <= value <= values.high if isinstance(values, Range) else value in values
        if not inside:
            return None
        found[name] = value
    return found

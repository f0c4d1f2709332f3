"""Options by name: what a function or a settings class takes, and the one check of the values that people give.

An option's type is its annotation: a plain type, `T | None`, a type with bounds such as `Count`, or the `Literal` words
that a text may be, so that a signature says all that is checked.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from imgrec_lib.errors import InputError, shown, unknown_name

Count = Annotated[int, Ge(1)]
"""How many of something of which there must be at least one."""

CountOrNone = Annotated[int, Ge(0)]
"""How many of something of which there may be none."""

Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]

ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
"""A part of a whole that leaves something over."""


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        type: the annotation.
        default: its default; `inspect.Parameter.empty` where there is none.
    """

    type: Any
    default: Any = inspect.Parameter.empty


def options_of(owner: Callable[..., Any]) -> dict[str, Option]:
    """The keyword-only arguments of a function or of a class's constructor, or the fields of a dataclass."""
    if is_dataclass(owner):
        hints = get_type_hints(owner, include_extras=True)
        return {field.name: Option(hints[field.name], field.default) for field in fields(owner)}
    hints = get_type_hints(owner.__init__ if inspect.isclass(owner) else owner, include_extras=True)
    return {
        name: Option(hints[name], parameter.default)
        for name, parameter in inspect.signature(owner).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def check_options(
    owner: str, options: Mapping[str, Option], values: Mapping[str, Any], noun: str = "parameter"
) -> dict[str, Any]:
    """Values of options, each as its option's type.

    Args:
        owner: whose options they are, for the sentence ("notebook 03_train").
        options: the admissible ones by name.
        values: what was given. A whole number passes for a decimal one and a list for a tuple; nothing else is
            converted.
        noun: what an option is called in the sentence.

    Raises:
        InputError: an unknown name (with a suggestion), or a value of another type or out of its bounds.
    """
    return {name: _check_option(owner, name, value, options, noun) for name, value in values.items()}


def _check_option(owner: str, name: str, value: Any, options: Mapping[str, Option], noun: str = "parameter") -> Any:
    """One value, as `check_options` checks it."""
    if name not in options:
        raise unknown_name(f"{noun} of {owner}", name, options)
    annotation = options[name].type
    for wanted, bounds in _alternatives(annotation):
        if wanted is float and type(value) is int:
            value = float(value)
        elif wanted is tuple and isinstance(value, list):
            value = tuple(value)
        # A bool is an int for Python, and a mistake where a number is wanted.
        if (type(value) is wanted or (wanted in (Path, dict, list) and isinstance(value, wanted))) and all(
            _within(value, bound) for bound in (*bounds, *((_FINITE,) if wanted is float else ()))
        ):
            return value
    words = [word for _, bounds in _alternatives(annotation) for word in _words(bounds)]
    if words and isinstance(value, str):
        raise unknown_name(name, value, words)
    raise InputError(f"{noun} {name!r} of {owner} must be {_in_words(annotation)}, not {shown(value)}.")


def admits(annotation: Any, kind: type) -> bool:
    """Whether an annotation admits values of a plain type."""
    return kind in (plain for plain, _ in _alternatives(annotation))


_FINITE = object()


def _alternatives(annotation: Any) -> list[tuple[type, tuple[Any, ...]]]:
    """The plain types that an annotation admits, each with its bounds; a `Literal` bounds a text."""
    if get_origin(annotation) in (Union, UnionType):
        return [each for part in get_args(annotation) for each in _alternatives(part)]
    if get_origin(annotation) is Annotated:
        inner, *bounds = get_args(annotation)
        return [(plain, (*earlier, *bounds)) for plain, earlier in _alternatives(inner)]
    if get_origin(annotation) is Literal:
        return [(str, (annotation,))]
    return [(get_origin(annotation) or annotation, ())]


def _within(value: Any, bound: Any) -> bool:
    if bound is _FINITE:
        return math.isfinite(value)
    if get_origin(bound) is Literal:
        return value in get_args(bound)
    return bool(
        (not isinstance(bound, Ge) or value >= bound.ge)
        and (not isinstance(bound, Gt) or value > bound.gt)
        and (not isinstance(bound, Le) or value <= bound.le)
        and (not isinstance(bound, Lt) or value < bound.lt)
    )


def _in_words(annotation: Any) -> str:
    """What is wanted, in words: "int", "str or None", "float, at least 0 and below 1"."""
    kinds, limits = [], []
    for plain, bounds in _alternatives(annotation):
        kinds.append("None" if plain is type(None) else plain.__name__)
        limits += list(_limits(bounds))
    kind = " or ".join(dict.fromkeys(kinds))
    return f"{kind}, {' and '.join(limits)}" if limits else kind


def _words(bounds: Iterable[Any]) -> Iterable[str]:
    for bound in bounds:
        if get_origin(bound) is Literal:
            yield from get_args(bound)


def _limits(bounds: Iterable[Any]) -> Iterable[str]:
    for bound in bounds:
        if isinstance(bound, Ge):
            yield f"at least {bound.ge}"
        elif isinstance(bound, Gt):
            yield f"above {bound.gt}"
        elif isinstance(bound, Le):
            yield f"at most {bound.le}"
        elif isinstance(bound, Lt):
            yield f"below {bound.lt}"

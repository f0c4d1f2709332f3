"""Options by name: what a function or a settings class takes, and the check of the values that people give.

An option's type is its annotation: a plain type, `T | None`, a type with bounds such as `Count`, or the `Literal` words
that a text may be, so that a signature says all that is checked. `check_options` holds against it what files and the
command line say, exactly, for it is kept in records; `checked` holds the arguments of calls, NumPy's numbers included.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MinLen

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
class Array:
    """A bound: an array or a tensor of so many dimensions, of numbers of NumPy's kinds ("iu": whole ones)."""

    dimensions: int
    kinds: str = "iuf"

    def admits(self, value: Any) -> bool:
        """Whether it has this form."""
        kind = np.dtype(str(value.dtype).removeprefix("torch.").replace("bfloat16", "float32")).kind
        return value.ndim == self.dimensions and kind in self.kinds


@dataclass(frozen=True)
class Below:
    """A bound: an index, or indices, of something of which another argument says how many there are.

    Attributes:
        limit: the argument with attributes behind it, such as "opened.dataset.n_users": a number, or what has a length.
    """

    limit: str


Indices = Annotated[np.ndarray, Array(1, "iu")]
Vectors = Annotated[np.ndarray, Array(2)]


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
    for plain, bounds in _alternatives(annotation):
        wanted = get_origin(plain) or plain
        if wanted is float and type(value) is int:
            value = float(value)
        elif wanted is tuple and isinstance(value, list):
            value = tuple(value)
        # A bool is an int for Python, and a mistake where a number is wanted.
        if (_fits(value, plain) if wanted in (Path, dict, list) else type(value) is wanted) and all(
            _within(value, bound) for bound in (*bounds, *((_FINITE,) if wanted is float else ()))
        ):
            return value
    raise _refused(owner, name, value, annotation, noun)


# Arguments of calls


Called = TypeVar("Called", bound=Callable[..., Any])


def check_calls(package: str) -> None:
    """Hold every call of what a package offers against the annotations, see `checked`.

    Args:
        package: the name of the package, which has an `__all__`.
    """
    names = vars(sys.modules[package])
    for name in names["__all__"]:
        names[name] = check_call(names[name])


def check_call(offered: Any) -> Any:
    """What a package offers, its calls checked if it is a function or a class: see `check_calls`."""
    if inspect.isclass(offered):
        return checked(offered)
    if not inspect.isroutine(offered):
        return offered
    held = checked(offered)
    vars(sys.modules[held.__module__])[held.__name__] = held  # where a pickle looks for it
    return held


def checked(called: Called) -> Called:
    """A function, or a class with its constructor and methods, whose arguments are checked before anything is done.

    They are passed on as they were given, but for a text where a path is wanted, in which `~` is the user's home, a
    list where a tuple is, and anything array-like (a tensor, a column of a table) where an array or a sequence is. A
    text is a sequence only where anything may be in one. A check among an annotation's bounds, a function that raises
    an `InputError` of its own, sees the value first. What is imported for type checkers alone is not checked.

    Raises (when called):
        InputError: an unknown argument (with a suggestion), or a value of another type or out of its bounds.
    """
    if not inspect.isclass(called):
        return cast(Called, _checked(called, getattr(called, "__qualname__", "")))
    own = called.__module__.partition(".")[0]
    # The methods of a network are called in its inner loops, and traced.
    is_network = any(kind.__module__.startswith("torch.") for kind in called.__mro__)
    for name in ("__init__",) if is_network else ("__init__", "__call__", *vars(called)):
        method = inspect.getattr_static(called, name, None)
        function = method.__func__ if isinstance(method, classmethod) else method
        if not inspect.isfunction(function) or function.__module__.partition(".")[0] != own:
            continue
        if name in ("__init__", "__call__") or not name.startswith("_"):
            owner = called.__name__ if name == "__init__" else f"{called.__name__}.{name}"
            held = _checked(function, owner)
            setattr(called, name, held if function is method else classmethod(held))
    return cast(Called, called)


def _checked(called: Callable[..., Any], owner: str) -> Callable[..., Any]:
    """`checked` of a function, which sentences call by the name of its owner."""
    if hasattr(called, "checks_its_arguments"):
        return called
    parameters = inspect.signature(called).parameters
    kinds = {kind: [name for name, each in parameters.items() if each.kind is kind] for kind in inspect._ParameterKind}
    places = kinds[inspect.Parameter.POSITIONAL_ONLY] + kinds[inspect.Parameter.POSITIONAL_OR_KEYWORD]
    further = "".join(kinds[inspect.Parameter.VAR_POSITIONAL])
    named = kinds[inspect.Parameter.POSITIONAL_OR_KEYWORD] + kinds[inspect.Parameter.KEYWORD_ONLY]
    any_name = bool(kinds[inspect.Parameter.VAR_KEYWORD])

    @functools.cache
    def annotations() -> dict[str, Any]:
        unknown: dict[str, Any] = {}
        while True:
            try:
                hints = get_type_hints(inspect.unwrap(called), localns=unknown, include_extras=True)
                return {name: hints[name] for name in (*places, further, *named) if hints.get(name, Any) is not Any}
            except NameError as error:  # what the module imports for type checkers alone
                unknown[str(error.name)] = Any

    @functools.cache
    def indices() -> dict[str, str]:
        bounds = {name: [each for _, of in _alternatives(kind) for each in of] for name, kind in annotations().items()}
        return {name: each.limit for name, found in bounds.items() for each in found if isinstance(each, Below)}

    def admitted(name: str, value: Any) -> Any:
        if name not in annotations():
            return value
        annotation = annotations()[name]
        for given in _readings(value):
            if _fits(given, annotation):
                return given
        raise _refused(owner, name, value, annotation, "argument")

    @functools.wraps(called)
    def call(*arguments: Any, **others: Any) -> Any:
        for name in () if any_name else others.keys() - named:
            raise unknown_name(f"argument of {owner}", name, [each for each in named if each != "self"])
        by_place = tuple(map(admitted, chain(places, repeat(further)), arguments))
        by_name = {name: admitted(name, value) for name, value in others.items()}
        if indices():
            given = dict(zip(places, by_place, strict=False)) | by_name
            for name in indices().keys() & given:
                _check_indices(name, given[name], indices()[name], given)
        return called(*by_place, **by_name)

    call.checks_its_arguments = True  # type: ignore[attr-defined]
    return call


def _check_indices(name: str, value: Any, limit: str, given: Mapping[str, Any]) -> None:
    argument, *attributes = limit.split(".")
    if value is None or argument not in given:
        return
    found = functools.reduce(getattr, attributes, given[argument])
    n = found if isinstance(found, int) else len(found)
    numbers = np.atleast_1d(np.asarray(value))
    outside = numbers[(numbers < 0) | (numbers >= n)]
    if len(outside):
        raise InputError(f"{name.removesuffix('s')} index {outside[0]} does not exist: choose from 0 to {n - 1}.")


def _readings(value: Any) -> Iterator[Any]:
    """A value as it was given, then as what else it can be taken for."""
    yield value
    if isinstance(value, str):
        yield Path(value).expanduser()
    elif isinstance(value, list):
        yield tuple(value)
    elif hasattr(value, "__array__"):
        with suppress(TypeError, RuntimeError):  # a tensor of a GPU, or one with a gradient, is no array
            array = value.__array__()
            yield array
            yield array.tolist()


# What an annotation admits


def _fits(value: Any, annotation: Any) -> bool:
    """Whether an annotation admits a value as the argument of a call.

    Raises:
        InputError: a check among its bounds says so itself.
    """
    kind, inner = get_origin(annotation) or annotation, get_args(annotation)
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in inner)
    if kind is Annotated:
        for check in filter(callable, inner[1:]):
            check(value)
        return _fits(value, inner[0]) and all(_within(value, bound) for bound in inner[1:])
    if isinstance(kind, TypeVar):
        return not kind.__constraints__ or any(_fits(value, each) for each in kind.__constraints__)
    if kind is Literal:
        return isinstance(value, str) and value in inner
    if kind in (int, float):
        return isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
    if kind is bool:
        return type(value).__name__ == "bool"  # also NumPy's
    if kind is Any or not isinstance(kind, type):
        return True
    if not isinstance(value, kind):
        return False
    if isinstance(value, str):
        return kind not in (Sequence, Collection, Iterable) or inner == (Any,)
    if isinstance(value, Mapping) and len(inner) == 2:
        return _hold(value.keys(), inner[0]) and _hold(value.values(), inner[1])
    if isinstance(value, tuple) and inner and kind is tuple and inner[-1] is not Ellipsis:
        return len(value) == len(inner) and all(map(_fits, value, inner))
    return not isinstance(value, (list, tuple, set, frozenset)) or not inner or _hold(value, inner[0])


def _hold(values: Collection[Any], annotation: Any) -> bool:
    """Whether an annotation admits the values of a collection: the first thousand, and one of each type."""
    return all(_fits(each, annotation) for each in (*islice(values, 1000), *{type(v): v for v in values}.values()))


def _refused(owner: str, name: str, value: Any, annotation: Any, noun: str) -> InputError:
    words = [word for _, bounds in _alternatives(annotation) for word in _words(bounds)]
    if words and isinstance(value, str):
        return unknown_name(name, value, words)
    return InputError(f"{noun} {name!r} of {owner} must be {_in_words(annotation)}, not {shown(value)}.")


def admits(annotation: Any, kind: type) -> bool:
    """Whether an annotation admits values of a plain type."""
    return kind in (get_origin(plain) or plain for plain, _ in _alternatives(annotation))


_FINITE = object()


def _alternatives(annotation: Any) -> list[tuple[Any, tuple[Any, ...]]]:
    """The types that an annotation admits, each with its bounds; a `Literal` bounds a text."""
    if get_origin(annotation) in (Union, UnionType):
        return [each for part in get_args(annotation) for each in _alternatives(part)]
    if get_origin(annotation) is Annotated:
        inner, *bounds = get_args(annotation)
        return [(plain, (*earlier, *bounds)) for plain, earlier in _alternatives(inner)]
    if get_origin(annotation) is Literal:
        return [(str, (annotation,))]
    return [(annotation, ())]


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
        and (not isinstance(bound, MinLen) or len(value) >= bound.min_length)
        and (not isinstance(bound, Array) or bound.admits(value))
    )


def _in_words(annotation: Any) -> str:
    """What is wanted, in words: "int", "str or None", "float, at least 0 and below 1", "Sequence of str"."""
    kinds, limits = [], []
    for plain, bounds in _alternatives(annotation):
        kind = get_origin(plain) or plain
        of = [] if kind is Callable or Any in get_args(plain) else [e for e in get_args(plain) if e is not Ellipsis]
        name = "None" if plain is type(None) else kind.__name__
        kinds.append(" of ".join([name, *([" and ".join(map(_in_words, of))] if of else [])]))
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
        elif isinstance(bound, MinLen):
            yield f"{bound.min_length} of them or more"
        elif isinstance(bound, Array):
            yield f"of {bound.dimensions} dimension{'s' if bound.dimensions > 1 else ''}"
            yield {"iu": "of whole numbers", "b": "of bools"}.get(bound.kinds, "of numbers")

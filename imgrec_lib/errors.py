"""The one exception that bad input raises, and the suggestion that goes with a misspelt name."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: one sentence that names the file, row or field, and the remedy."""


def one_line(error: BaseException) -> str:
    """Another library's message as part of a sentence."""
    return " ".join(str(error).split()).rstrip(".")


def shown(value: object) -> str:
    """`repr` cut to a length that a sentence can hold, whatever the value."""
    return _REPR.repr(value)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Build the error for a name that is not one of `known`, with the closest ones suggested.

    Args:
        kind: what the name names, in the singular ("model", "dataset", "parameter of bpr-mf").
        name: the name as given.
        known: the admissible names.

    Returns:
        The exception, to be raised by the caller.
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(known)}."
    return InputError(f"unknown {kind} {name!r}: {hint}")

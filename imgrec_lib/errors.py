"""The one exception that bad input raises, the warning that odd input gets, and what sentences are made of."""

from __future__ import annotations

import difflib
import reprlib
import warnings
from collections.abc import Collection, Iterable
from itertools import islice

LONGEST = 1000
"""Characters of a sentence."""


class InputError(ValueError):
    """Bad input: one sentence that names the file, row or field, and the remedy.

    Parts of it come from the input. So that it stays one line of readable length, and no terminal takes orders from it,
    white space becomes blanks, other characters that do not print are escaped, and the middle of what is long is cut.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(_readable(sentence))


class InputWarning(UserWarning):
    """Input that is used, and what was taken from it, left out of it or guessed: see `tell`."""


def tell(sentence: str) -> None:
    """Warn of what was done with odd input, in one sentence as readable as that of an `InputError`.

    It is shown whenever it is true, and without a line of source: it is about the input.
    """
    warnings.warn_explicit(InputWarning(_readable(sentence)), None, "imgrec", 0)


def _readable(sentence: str) -> str:
    text = "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in sentence)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def few(values: Collection[object], most: int = 3) -> str:
    """The first of many values, as a sentence names them: "'a', 'b', 'c', ..."."""
    return ", ".join([*(repr(value) for value in islice(values, most)), *(["..."] if len(values) > most else [])])


def one_line(error: BaseException) -> str:
    """Another library's message as part of a sentence."""
    return " ".join(str(error).split()).rstrip(".")


def shown(value: object) -> str:
    """`repr` cut to a length that a sentence can hold, whatever the value."""
    return _REPR.repr(value)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Build the error for a name that is not one of `known`, with the closest ones suggested.

    Args:
        kind: what the name names, in the singular ("model", "dataset", "parameter of bpr-mf").
        name: the name as given.
        known: the admissible names.

    Returns:
        The exception, to be raised by the caller.
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) and len(name) < 100 else []
    hint = f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(known)}."
    return InputError(f"unknown {kind} {shown(name)}: {hint}")

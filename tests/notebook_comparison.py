"""How nbval compares text: word by word, numbers with a tolerance; a pytest plugin, `-p notebook_comparison`.

nbval itself only knows equality, and training differs in the last digits between processors and versions of PyTorch.
A whole number must be equal; a decimal one may differ by `ABSOLUTE` or `RELATIVE`, whichever allows more.
"""

from __future__ import annotations

import math
import re

from nbval.plugin import IPyNbCell

ABSOLUTE, RELATIVE = 0.05, 0.05

MINUS = "\u2212"  # the typographic minus sign of tables

DECIMAL = re.compile(r"(?<![\w.])[-\u2212]?\d+\.\d+(?:e[-+]?\d+)?(?![\w.])")


def same(text: str, other: str) -> bool:
    """Whether two texts are equal but for decimal numbers within the tolerance."""
    if DECIMAL.split(text) != DECIMAL.split(other):
        return False
    pairs = zip(DECIMAL.findall(text), DECIMAL.findall(other), strict=True)
    return all(
        math.isclose(float(a.replace(MINUS, "-")), float(b.replace(MINUS, "-")), rel_tol=RELATIVE, abs_tol=ABSOLUTE)
        for a, b in pairs
    )


class TolerantText(str):
    """Text whose equality is `same`."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and same(str(self), str(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(DECIMAL.sub("#", str(self)))


def pytest_configure() -> None:
    sanitize = IPyNbCell.sanitize

    def tolerant(self: IPyNbCell, text: str) -> str:
        # A best or second-best mark may go to another row where two differ by less than the tolerance.
        if not isinstance(text, str):
            return text
        plain = re.sub(r"</?(?:strong|b|u)>|\*\*", "", sanitize(self, text))
        return TolerantText(plain)

    IPyNbCell.sanitize = tolerant

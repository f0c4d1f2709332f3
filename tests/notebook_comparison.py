"""How nbval compares outputs; a pytest plugin, `-p notebook_comparison`.

Text is compared word by word, numbers with a tolerance: nbval itself only knows equality, and training differs in the
last digits between processors and versions of PyTorch. A whole number must be equal; a decimal one may differ by
`ABSOLUTE` or `RELATIVE`, whichever allows more. Figures, which nbval passes over, must look alike from afar.
"""

from __future__ import annotations

import base64
import io
import math
import re

import numpy as np
from nbval.plugin import IPyNbCell, IPyNbFile
from PIL import Image

ABSOLUTE, RELATIVE = 0.05, 0.05

DIFFERENCE = 0.05
"""How far two figures' grey values, of 0 to 1 and in `CELLS` x `CELLS` parts of the figure, may differ on average."""

CELLS = 24

MINUS = "\u2212"  # the typographic minus sign of tables

DECIMAL = re.compile(r"(?<![\w.])[-\u2212]?\d+\.\d+(?:e[-+]?\d+)?(?![\w.])")

PNG = base64.b64encode(b"\x89PNG\r\n")[:7].decode()


def same(text: str, other: str) -> bool:
    """Whether two texts are equal but for decimal numbers within the tolerance."""
    if DECIMAL.split(text) != DECIMAL.split(other):
        return False
    pairs = zip(DECIMAL.findall(text), DECIMAL.findall(other), strict=True)
    return all(
        math.isclose(float(a.replace(MINUS, "-")), float(b.replace(MINUS, "-")), rel_tol=RELATIVE, abs_tol=ABSOLUTE)
        for a, b in pairs
    )


def alike(figure: str, other: str) -> bool:
    """Whether two PNG files, in base64, show the same from afar."""
    grey = []
    for encoded in (figure, other):
        picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        paper.alpha_composite(picture)
        grey.append(np.asarray(paper.convert("L").resize((CELLS, CELLS), Image.Resampling.BOX), np.float64) / 255)
    return float(np.abs(grey[0] - grey[1]).mean()) <= DIFFERENCE


class Tolerant(str):
    """A text or a figure whose equality is `same`, or `alike`."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            return False
        figures = [text.startswith(PNG) for text in (self, other)]
        return alike(str(self), str(other)) if all(figures) else same(str(self), str(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(DECIMAL.sub("#", str(self)))


def pytest_configure() -> None:
    sanitize, setup = IPyNbCell.sanitize, IPyNbFile.setup

    def tolerant(self: IPyNbCell, text: str) -> str:
        # A best or second-best mark may go to another row where two differ by less than the tolerance.
        if not isinstance(text, str):
            return text
        return Tolerant(text if text.startswith(PNG) else re.sub(r"</?(?:strong|b|u)>|\*\*", "", sanitize(self, text)))

    def with_figures(self: IPyNbFile) -> None:
        setup(self)
        self.skip_compare = tuple(kind for kind in self.skip_compare if kind != "image/png")

    IPyNbCell.sanitize = tolerant
    IPyNbFile.setup = with_figures

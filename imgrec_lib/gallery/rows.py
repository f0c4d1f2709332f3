"""What galleries are made of: rows of cells, each an item with its picture and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Cell:
    """One item in a gallery.

    Attributes:
        item: item index.
        caption: lines of text, the name first.
        score: similarity or the model's score, where there is one.
        mark: what is special about it ("query", "held out"); empty for nothing.
        parts: what its score is made of, by name.
        picture: (height, width, 3) uint8, in its own proportions, for a picture that is none of the catalogue's; then
            `item` is -1.
    """

    item: int
    caption: tuple[str, ...]
    score: float | None = None
    mark: str = ""
    parts: tuple[tuple[str, float], ...] = ()
    picture: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def alt(self) -> str:
        """The cell in words: name, category, score, what it is made of, and mark."""
        score = [] if self.score is None else [f"score {self.score:.3f}"]
        words = [*self.caption, *score, *(f"{name} {value:+.3f}" for name, value in self.parts), self.mark]
        return ", ".join(word for word in words if word)


@dataclass(frozen=True)
class Row:
    """A titled row of cells."""

    title: str
    cells: tuple[Cell, ...]

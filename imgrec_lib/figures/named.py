"""Figures whose names may be in any script."""

from __future__ import annotations

import warnings
from typing import Any

from matplotlib.figure import Figure as Figure_
from matplotlib.text import Text

from imgrec_lib.fonts import families_for


class Figure(Figure_):
    """A figure that is drawn with fonts that have the letters of its texts."""

    def draw(self, renderer: Any) -> None:
        """Draw; called by Matplotlib, at every layout and every saving."""
        for text in self.findobj(Text):
            families = [] if text.get_text().isascii() else families_for(text.get_text())
            if len(families) > 1:
                text.set_fontfamily([*families, "sans-serif"])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # `families_for` has said it, in one sentence
            super().draw(renderer)

"""Fonts for names in any script: where Matplotlib's own lacks a letter, those of this machine that have it."""

from __future__ import annotations

import unicodedata
from functools import cache

from matplotlib.font_manager import findfont, findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font

from imgrec_lib.errors import few, tell

OWN = "DejaVu Sans"
"""The font that comes with Matplotlib."""
WITHOUT_LOOKS = ("Cc", "Cf")
"""Categories of characters of which nothing is seen: controls, and marks of direction or of joining."""


def fonts_for(text: str) -> list[str]:
    """Files of fonts that together have the letters of a text, as far as this machine's do; Matplotlib's own first.

    Warns, once for the same letters, of those that no installed font has.
    """
    looked_for = {c for c in text if unicodedata.category(c) not in WITHOUT_LOOKS and not "\ufe00" <= c <= "\ufe0f"}
    return [findfont(OWN), *_fallbacks(frozenset(map(ord, looked_for)) - _letters(findfont(OWN)))]


def families_for(text: str) -> list[str]:
    """The names by which Matplotlib knows `fonts_for` a text."""
    known = {entry.fname: entry.name for entry in fontManager.ttflist}
    families = []
    for path in fonts_for(text):
        if path not in known:  # installed since Matplotlib listed the fonts
            fontManager.addfont(path)
            known[path] = fontManager.ttflist[-1].name
        families.append(known[path])
    return families


@cache
def _fallbacks(missing: frozenset[int]) -> tuple[str, ...]:
    """As few fonts as it takes, upright ones of a plain weight before others."""
    chosen: list[str] = []
    while missing:
        best = max(_installed(), key=lambda path: len(missing & _letters(path)), default=None)
        if best is None or not missing & _letters(best):
            tell(
                f"no installed font has the letters {few(sorted(map(chr, missing)))}, which figures show as boxes: "
                "install one that has them, such as a Noto font."
            )
            break
        chosen.append(best)
        missing -= _letters(best)
    return tuple(chosen)


@cache
def _installed() -> tuple[str, ...]:
    def odd(path: str) -> tuple[bool, bool, str]:
        name, marked = path.lower(), ("bold", "italic", "oblique", "light", "thin", "black", "mono")
        return any(word in name for word in marked), "sans" not in name, path

    return tuple(sorted(findSystemFonts(), key=odd))


@cache
def _letters(path: str) -> frozenset[int]:
    try:
        font = FT2Font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):  # a font that FreeType cannot read
        return frozenset()

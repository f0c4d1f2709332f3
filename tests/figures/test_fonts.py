"""Names in any script: a letter that Matplotlib's font lacks is drawn by another one, or one sentence says that no
installed font has it."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder  # type: ignore[import-untyped]
from fontTools.pens.ttGlyphPen import TTGlyphPen  # type: ignore[import-untyped]
from PIL import Image

from imgrec_lib import fonts
from imgrec_lib.errors import InputWarning
from imgrec_lib.figures.curves import finish, single_panel
from imgrec_lib.gallery import Cell, Gallery, Row

SUN, SEA = "\u65e5", "\u6d77"


@pytest.fixture
def one_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose only font beside Matplotlib's has one Chinese letter: a black block."""
    pen = TTGlyphPen(None)
    for move, place in zip((pen.moveTo, *[pen.lineTo] * 3), [(0, 0), (0, 900), (900, 900), (900, 0)], strict=True):
        move(place)
    pen.closePath()
    block = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "block"])
    builder.setupCharacterMap({ord(SUN): "block"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "block": block})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "block": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Imgrec Block", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path / "block.ttf"
    builder.save(path)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(fonts, "findSystemFonts", lambda: [str(tmp_path / "broken.ttf"), str(path)])
    for kept in (fonts._installed, fonts._fallbacks):
        kept.cache_clear()
    return path


def ink(picture: Image.Image) -> int:
    return int((np.asarray(picture.convert("L")) < 100).sum())


def drawn(label: str) -> int:
    figure, axes = single_panel(3, 1)
    axes.set_yticks([0], [label])
    finish(axes, "", "")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return ink(Image.open(buffer))


def test_a_letter_that_one_font_has_is_drawn_by_it(one_font: Path, tmp_path: Path) -> None:
    assert fonts.fonts_for("plain \u00e9") == [fonts.findfont(fonts.OWN)]
    assert fonts.fonts_for(f"a {SUN}")[1:] == [str(one_font)]
    with warnings.catch_warnings(action="error"):
        assert drawn(SUN * 4) > drawn("") + 200  # four black blocks

        def sheet(name: str) -> int:
            Gallery("", (Row("", (Cell(-1, (name,)),)),), None).png(tmp_path / "sheet.png")
            return ink(Image.open(tmp_path / "sheet.png"))

        assert sheet(SUN * 4) > sheet("") + 200


def test_one_sentence_says_what_no_font_has(one_font: Path) -> None:
    with pytest.warns(
        InputWarning, match=f"no installed font has the letters '{SEA}', which figures show as boxes: ins"
    ) as told:
        drawn(SEA + SUN)
        drawn(SEA + SUN)
    assert len(told) == 1

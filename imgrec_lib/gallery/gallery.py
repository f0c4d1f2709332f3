"""Galleries: rows of items as pictures, one object with three faces.

gallery.html(), and as a cell's result in Jupyter    static HTML, pictures inside as data URIs
gallery.widget()                                     a live widget: a slider for the size, pictures that can be chosen
gallery.png(path)                                    a contact sheet, for places that show files only
"""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imgrec_lib.data.images import ImageStore
from imgrec_lib.files import replacing

if TYPE_CHECKING:
    from imgrec_lib.gallery.live import LiveGallery

STYLE = """\
.imgrec-gallery { margin: 0; padding: 4px; font: 13px/1.35 system-ui, sans-serif; color: inherit; }
.imgrec-gallery p { margin: 1em 0 .4em; }
.imgrec-gallery .title { font-size: 15px; font-weight: 600; }
.imgrec-gallery ul { display: flex; flex-wrap: wrap; gap: 10px; list-style: none; margin: 0; padding: 0; }
.imgrec-gallery li { margin: 0; }
.imgrec-gallery figure { margin: 0; }
.imgrec-gallery img, .imgrec-gallery .tile { display: block; box-sizing: border-box; border-radius: 6px;
  border: 1px solid rgba(128, 128, 128, .4); background: #fff; object-fit: cover; max-width: none; }
.imgrec-gallery .tile { display: grid; place-items: center; padding: 4px; background: rgba(128, 128, 128, .15);
  text-align: center; overflow: hidden; overflow-wrap: anywhere; }
.imgrec-gallery figcaption { margin: 4px 0 0; padding: 0; font-size: 12px; text-align: left; color: inherit; }
.imgrec-gallery figcaption span { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.imgrec-gallery figcaption span:first-child { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2;
  white-space: normal; overflow-wrap: anywhere; }
.imgrec-gallery .mark { width: fit-content; max-width: 100%; box-sizing: border-box; padding: 0 6px;
  border-radius: 4px; background: #0b5cad; color: #fff; font-weight: 600; }
.imgrec-gallery .marked { outline: 3px solid #0b5cad; outline-offset: 1px; }
.imgrec-gallery .score { font-variant-numeric: tabular-nums; }
.imgrec-gallery .part { display: grid; grid-template-columns: 1fr auto; column-gap: 4px; }
.imgrec-gallery .part, .imgrec-gallery .part span { font-size: 11px; font-variant-numeric: tabular-nums; }
.imgrec-gallery .part i { grid-column: 1 / 3; height: 4px; margin: 1px 0 3px; border-radius: 2px; }
.imgrec-gallery [data-item]:focus-visible { outline: 3px solid #0b5cad; outline-offset: 2px; border-radius: 6px; }
.imgrec-gallery [role=button] { cursor: pointer; }
"""
"""Style of the HTML face, for a page that holds several galleries."""

INK, GREY, BADGE, LOWERS, PAPER, TILE = "#1b1f24", "#57606a", "#0b5cad", "#c4560a", "#ffffff", "#e9ebee"


@dataclass(frozen=True)
class Cell:
    """One item in a gallery.

    Attributes:
        item: item index.
        caption: lines of text, the name first.
        score: similarity or the model's score, where there is one.
        mark: what is special about it ("query", "held out"); empty for nothing.
        parts: what its score is made of, by name.
        picture: (height, width, 3) uint8, for a picture that is none of the catalogue's; then `item` is -1.
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


@dataclass(frozen=True, eq=False, repr=False)
class Gallery:
    """Rows of items with their pictures.

    Attributes:
        title: what it shows.
        rows: the rows.
        images: the image store, or None: then, and where a picture is missing, text stands in its place.
    """

    title: str
    rows: tuple[Row, ...]
    images: ImageStore | None

    def __repr__(self) -> str:
        return f"Gallery({self.title!r}, {len(self.rows)} rows, {sum(len(row.cells) for row in self.rows)} items)"

    def _repr_html_(self) -> str:
        return self.html()

    @property
    def items(self) -> list[int]:
        """The items of all cells, row by row."""
        return [cell.item for row in self.rows for cell in row.cells]

    def html(self, size: int = 96, *, style: bool = True) -> str:
        """Static HTML without any reference to the outside; all text is escaped, every picture has an alt text.

        Args:
            size: side of the pictures in CSS pixels.
            style: whether to put `STYLE` in; without it the page must.
        """
        largest = max((abs(v) for row in self.rows for cell in row.cells for _, v in cell.parts), default=0) or 1
        rows = "".join(
            f'<p>{html.escape(row.title)}</p>\n<ul aria-label="{html.escape(row.title)}">\n'
            + "".join(self._cell(cell, size, largest) for cell in row.cells)
            + "</ul>\n"
            for row in self.rows
        )
        head = f"<style>{STYLE}</style>\n" if style else ""
        title = html.escape(self.title)
        return f'{head}<div class="imgrec-gallery">\n<p class="title">{title}</p>\n{rows}</div>\n'

    def widget(self, size: int = 96) -> LiveGallery:
        """The gallery in Jupyter with a slider for the size; a picture is chosen by a click, or by Tab and Enter."""
        from imgrec_lib.gallery.live import LiveGallery

        return LiveGallery(self, size)

    def png(self, path: Path, size: int = 96) -> Path:
        """Write a contact sheet.

        Its width is 2 margins of 16 pixels and `size` + 10 for each column less 10; `sheet_size` tells both sides.

        Args:
            path: where to write; replaced whole.
            size: side of the pictures in pixels.

        Returns:
            `path`.
        """
        sheet = Image.new("RGB", self.sheet_size(size), PAPER)
        draw = ImageDraw.Draw(sheet)
        width = sheet.width - 2 * _MARGIN
        draw.text((_MARGIN, _MARGIN), _fitting(self.title, _font(16), width), INK, _font(16))
        top = _MARGIN + _TITLE
        for row in self.rows:
            draw.text((_MARGIN, top + 6), _fitting(row.title, _font(13), width), INK, _font(13))
            for number, cell in enumerate(row.cells):
                self._draw(sheet, draw, cell, (_MARGIN + number * (size + _GAP), top + _ROW_TITLE), size)
            top += self._row_height(row, size)
        with replacing(Path(path)) as temporary:
            sheet.save(temporary, format="PNG")
        return Path(path)

    def sheet_size(self, size: int = 96) -> tuple[int, int]:
        """Width and height in pixels of the contact sheet."""
        columns = max((len(row.cells) for row in self.rows), default=1) or 1
        height = 2 * _MARGIN + _TITLE + sum(self._row_height(row, size) for row in self.rows)
        return 2 * _MARGIN + columns * (size + _GAP) - _GAP, height

    def _row_height(self, row: Row, size: int) -> int:
        return _ROW_TITLE + size + _LINE * max((len(_lines(cell, size)) for cell in row.cells), default=0) + _GAP

    def _picture(self, cell: Cell) -> bool:
        return cell.picture is not None or (self.images is not None and bool(self.images.present[cell.item]))

    def _cell(self, cell: Cell, size: int, largest: float) -> str:
        mark = " marked" if cell.mark else ""
        if self._picture(cell):
            if cell.picture is None:
                assert self.images is not None
                source = _data_uri(self.images, cell.item, size)
            else:
                source = _encoded(cell.picture, size)
            picture = (
                f'<img class="picture{mark}" src="{source}" width="{size}" height="{size}" '
                f'alt="{html.escape(cell.alt)}">'
            )
        else:
            text = html.escape(cell.caption[0] if cell.caption else str(cell.item))
            picture = f'<div class="tile{mark}" style="width:{size}px;height:{size}px">{text}<br>(no picture)</div>'
        lines = "".join(f"<span>{html.escape(line)}</span>" for line in cell.caption if line)
        if cell.score is not None:
            lines += f'<span class="score">{cell.score:.3f}</span>'
        for name, value in cell.parts:
            # What raises the score grows from the left, what lowers it from the right, in another colour.
            share, side = 100 * abs(value) / largest, "right" if value >= 0 else "left"
            bar = (
                f"background: linear-gradient(to {side}, {BADGE if value >= 0 else LOWERS} {share:.0f}%, transparent 0)"
            )
            lines += f'<span class="part"><span>{html.escape(name)}</span>{value:+.3f}<i style="{bar}"></i></span>'
        if cell.mark:
            lines += f'<span class="mark">{html.escape(cell.mark)}</span>'
        data = f' data-item="{cell.item}"' + (f' data-mark="{html.escape(cell.mark)}"' if cell.mark else "")
        return (
            f'<li style="width:{size}px" title="{html.escape(cell.alt)}"><figure{data}>{picture}'
            f"<figcaption>{lines}</figcaption></figure></li>\n"
        )

    def _draw(
        self, sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, corner: tuple[int, int], size: int
    ) -> None:
        left, top = corner
        frame = (left - 1, top - 1, left + size, top + size)
        if cell.picture is not None:
            sheet.paste(Image.fromarray(cell.picture).resize((size, size), Image.Resampling.BICUBIC), corner)
        elif self._picture(cell):
            assert self.images is not None
            sheet.paste(self.images.thumbnail(cell.item, size), corner)
        else:
            draw.rectangle(frame, fill=TILE)
            draw.text((left + 6, top + 6), _fitting("no picture", _font(11), size - 12), INK, _font(11))
        draw.rectangle(frame, outline=BADGE if cell.mark else GREY, width=3 if cell.mark else 1)
        top += size + 2
        for text, is_mark in _lines(cell, size):
            if is_mark:
                box = draw.textbbox((left + 4, top), text, _font(11))
                draw.rounded_rectangle((left, top, box[2] + 4, top + _LINE - 1), 3, fill=BADGE)
            draw.text((left + 4 * is_mark, top), text, PAPER if is_mark else INK, _font(11))
            top += _LINE


_MARGIN, _TITLE, _ROW_TITLE, _LINE, _GAP = 16, 28, 26, 15, 10


def _lines(cell: Cell, size: int) -> list[tuple[str, bool]]:
    """Lines below a picture, each fitting its width, and whether each is the mark; the name has two."""
    font = _font(11)
    lines = [(line, False) for line in _wrapped(cell.caption[0] if cell.caption else "", font, size)]
    lines += [(_fitting(line, font, size), False) for line in cell.caption[1:] if line]
    lines += [] if cell.score is None else [(f"{cell.score:.3f}", False)]
    lines += [(_fitting(f"{value:+.3f} {name}", font, size), False) for name, value in cell.parts]
    return lines + ([(_fitting(cell.mark, font, size - 8), True)] if cell.mark else [])


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> tuple[str, str]:
    """`text` as two lines, broken between words where the first word fits."""
    words = text.split()
    first = ""
    while words and font.getlength(f"{first} {words[0]}".strip()) <= width:
        first = f"{first} {words.pop(0)}".strip()
    if not first:
        return _fitting(text, font, width), ""
    return first, _fitting(" ".join(words), font, width)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own DejaVu Sans: Pillow's built-in font lacks most letters beyond ASCII."""
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans"), size)


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """One line of `text`, with an ellipsis where it does not fit."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


@lru_cache(8192)
def _data_uri(images: ImageStore, item: int, size: int) -> str:
    """An item's picture as it stands in HTML; kept, for a live page shows the same pictures again and again."""
    # Twice the size at which it is shown, for screens of high density, but never enlarged. To make a picture a little
    # smaller would take several times as long as to encode it.
    return data_uri(images.thumbnail(item, 2 * size if images.size > 3 * size else None))


def _encoded(pixels: np.ndarray, size: int) -> str:
    return data_uri(Image.fromarray(pixels).resize((2 * size, 2 * size), Image.Resampling.BICUBIC))


def data_uri(image: Image.Image) -> str:
    """A picture as a JPEG inside its own address."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

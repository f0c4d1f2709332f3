"""Galleries as contact sheets, for places that show files only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont, ImageOps

from imgrec_lib.data.images import ImageStore
from imgrec_lib.gallery.rows import Cell, Row
from imgrec_lib.gallery.thumbnails import cell_picture, frame_of

INK, GREY, BADGE, PAPER, TILE = "#1b1f24", "#57606a", "#0b5cad", "#ffffff", "#e9ebee"

_MARGIN, _TITLE, _ROW_TITLE, _LINE, _GAP = 16, 28, 26, 15, 10


def contact_sheet(title: str, rows: Sequence[Row], images: ImageStore | None, size: int = 96) -> Image.Image:
    """Rows of items as one picture of `sheet_size`.

    Args:
        title: what is shown.
        rows: the rows.
        images: the catalogue's pictures; where one is missing, text stands in its place.
        size: width of a picture's frame in pixels.
    """
    frame = frame_of(tuple(rows), images, size)
    sheet = Image.new("RGB", sheet_size(rows, images, size), PAPER)
    draw = ImageDraw.Draw(sheet)
    width = sheet.width - 2 * _MARGIN
    draw.text((_MARGIN, _MARGIN), _fitting(title, 16, width), INK, _font(16, title))
    top = _MARGIN + _TITLE
    for row in rows:
        draw.text((_MARGIN, top + 6), _fitting(row.title, 13, width), INK, _font(13, row.title))
        for number, cell in enumerate(row.cells):
            _draw(sheet, draw, cell, images, (_MARGIN + number * (size + _GAP), top + _ROW_TITLE), (size, frame))
        top += _row_height(row, size, frame)
    return sheet


def sheet_size(rows: Sequence[Row], images: ImageStore | None = None, size: int = 96) -> tuple[int, int]:
    """Width and height in pixels of a contact sheet.

    Its width is 2 margins of 16 pixels and `size` + 10 for each column less 10.
    """
    columns = max((len(row.cells) for row in rows), default=1) or 1
    frame = frame_of(tuple(rows), images, size)
    height = 2 * _MARGIN + _TITLE + sum(_row_height(row, size, frame) for row in rows)
    return 2 * _MARGIN + columns * (size + _GAP) - _GAP, height


def _row_height(row: Row, size: int, frame: int) -> int:
    return _ROW_TITLE + frame + _LINE * max((len(_lines(cell, size)) for cell in row.cells), default=0) + _GAP


def _draw(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    cell: Cell,
    images: ImageStore | None,
    corner: tuple[int, int],
    room: tuple[int, int],
) -> None:
    left, top = corner
    size, height = room
    frame = (left - 1, top - 1, left + size, top + height)
    picture = cell_picture(cell, images, max(room))
    if picture is not None:
        fitted = ImageOps.contain(picture, room, Image.Resampling.BICUBIC)
        sheet.paste(fitted, (left + (size - fitted.width) // 2, top + (height - fitted.height) // 2))
    else:
        draw.rectangle(frame, fill=TILE)
        draw.text((left + 6, top + 6), _fitting("no picture", 11, size - 12), INK, _font(11, ""))
    draw.rectangle(frame, outline=BADGE if cell.mark else GREY, width=3 if cell.mark else 1)
    top += height + 2
    for text, is_mark in _lines(cell, size):
        if is_mark:
            box = draw.textbbox((left + 4, top), text, _font(11, text))
            draw.rounded_rectangle((left, top, box[2] + 4, top + _LINE - 1), 3, fill=BADGE)
        draw.text((left + 4 * is_mark, top), text, PAPER if is_mark else INK, _font(11, text))
        top += _LINE


def _lines(cell: Cell, size: int) -> list[tuple[str, bool]]:
    """Lines below a picture, each fitting its width, and whether each is the mark; the name has two."""
    lines = [(line, False) for line in _wrapped(cell.caption[0] if cell.caption else "", 11, size)]
    lines += [(_fitting(line, 11, size), False) for line in cell.caption[1:] if line]
    lines += [] if cell.score is None else [(f"{cell.score:.3f}", False)]
    lines += [(_fitting(f"{value:+.3f} {name}", 11, size), False) for name, value in cell.parts]
    return lines + ([(_fitting(cell.mark, 11, size - 8), True)] if cell.mark else [])


def _wrapped(text: str, points: int, width: int) -> tuple[str, str]:
    """`text` as two lines, broken between words where the first word fits."""
    words, font = text.split(), _font(points, text)
    first = ""
    while words and font.getlength(f"{first} {words[0]}".strip()) <= width:
        first = f"{first} {words.pop(0)}".strip()
    if not first:
        return _fitting(text, points, width), ""
    return first, _fitting(" ".join(words), points, width)


def _font(size: int, text: str) -> ImageFont.FreeTypeFont:
    """The font of a text: Pillow draws it with one alone, so that of its letters that are the hardest to find."""
    from imgrec_lib.fonts import fonts_for

    return _opened(fonts_for(text)[-1], size)


@cache
def _opened(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _fitting(text: str, points: int, width: int) -> str:
    """One line of `text`, with an ellipsis where it does not fit."""
    text, font = " ".join(text.split()), _font(points, text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"

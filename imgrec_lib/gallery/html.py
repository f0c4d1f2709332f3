"""Galleries as HTML that needs nothing else: all text is escaped, the pictures lie inside as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from markupsafe import Markup
from PIL import Image

from imgrec_lib.data.images import ImageStore
from imgrec_lib.gallery.rows import Cell, Row

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

RAISES, LOWERS = "#0b5cad", "#c4560a"
"""Colours of the bars of what raises a score, and of what lowers it."""

_ROW = Markup('<p>{title}</p>\n<ul aria-label="{title}">\n{cells}</ul>\n')
_CELL = Markup(
    '<li style="width:{size}px" title="{alt}"><figure data-item="{item}"{mark}>{picture}'
    "<figcaption>{lines}</figcaption></figure></li>\n"
)
_PICTURE = Markup('<img class="picture{marked}" src="{source}" width="{size}" height="{size}" alt="{alt}">')
_TILE = Markup('<div class="tile{marked}" style="width:{size}px;height:{size}px">{text}<br>(no picture)</div>')
_PART = Markup(
    '<span class="part"><span>{name}</span>{value:+.3f}<i style="background: linear-gradient(to {side}, '
    '{colour} {share:.0f}%, transparent 0)"></i></span>'
)


def gallery_html(
    title: str, rows: Sequence[Row], images: ImageStore | None, size: int = 96, *, style: bool = True
) -> Markup:
    """Rows of items as HTML, without any reference to the outside; every picture has an alternative text.

    Args:
        title: what is shown.
        rows: the rows.
        images: the catalogue's pictures; where one is missing, text stands in its place.
        size: side of the pictures in CSS pixels.
        style: whether to put `STYLE` in; without it the page must.
    """
    largest = max((abs(value) for row in rows for cell in row.cells for _, value in cell.parts), default=0) or 1
    return Markup('{}<div class="imgrec-gallery">\n<p class="title">{}</p>\n{}</div>\n').format(
        Markup("<style>{}</style>\n").format(Markup(STYLE)) if style else "",
        title,
        Markup().join(
            _ROW.format(title=row.title, cells=Markup().join(_cell(cell, images, size, largest) for cell in row.cells))
            for row in rows
        ),
    )


def _cell(cell: Cell, images: ImageStore | None, size: int, largest: float) -> Markup:
    marked = " marked" if cell.mark else ""
    if cell.picture is not None:
        source = _encoded(cell.picture, size)
    else:
        source = _thumbnail(images, cell.item, size) if images is not None and images.present[cell.item] else ""
    if source:
        picture = _PICTURE.format(marked=marked, source=source, size=size, alt=cell.alt)
    else:
        text = cell.caption[0] if cell.caption else str(cell.item)
        picture = _TILE.format(marked=marked, size=size, text=text)
    lines = Markup().join(Markup("<span>{}</span>").format(line) for line in cell.caption if line)
    if cell.score is not None:
        lines += Markup('<span class="score">{:.3f}</span>').format(cell.score)
    for name, value in cell.parts:
        # What raises the score grows from the left, what lowers it from the right, in another colour.
        side, colour = ("right", RAISES) if value >= 0 else ("left", LOWERS)
        lines += _PART.format(name=name, value=value, side=side, colour=colour, share=100 * abs(value) / largest)
    if cell.mark:
        lines += Markup('<span class="mark">{}</span>').format(cell.mark)
    mark = Markup(' data-mark="{}"').format(cell.mark) if cell.mark else ""
    return _CELL.format(size=size, alt=cell.alt, item=cell.item, mark=mark, picture=picture, lines=lines)


@lru_cache(8192)
def _thumbnail(images: ImageStore, item: int, size: int) -> str:
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

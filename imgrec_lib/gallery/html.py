"""Galleries as HTML that needs nothing else: all text is escaped, the pictures lie inside as data URIs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from imgrec_lib.data.images import ImageStore
from imgrec_lib.gallery.rows import Cell, Row
from imgrec_lib.gallery.thumbnails import cell_uri, frame_height

STYLE = """\
.imgrec-gallery { margin: 0; padding: 4px; font: 13px/1.35 system-ui, sans-serif; color: inherit; }
.imgrec-gallery p { margin: 1em 0 .4em; overflow-wrap: anywhere; }
.imgrec-gallery .title { font-size: 15px; font-weight: 600; }
.imgrec-gallery ul { display: flex; flex-wrap: wrap; gap: 10px; list-style: none; margin: 0; padding: 0; }
.imgrec-gallery li { display: flex; gap: 10px; margin: 0; }
.imgrec-gallery figure { margin: 0; position: relative; }
.imgrec-gallery img, .imgrec-gallery .tile { display: block; box-sizing: border-box; border-radius: 6px;
  border: 1px solid rgba(128, 128, 128, .4); background: #fff; object-fit: contain; max-width: none; }
.imgrec-gallery .tile { display: grid; place-items: center; padding: 4px; background: rgba(128, 128, 128, .15);
  text-align: center; overflow: hidden; overflow-wrap: anywhere; }
.imgrec-gallery a { color: inherit; text-decoration: none; display: block; border-radius: 6px; }
.imgrec-gallery a:hover img { border-color: #0b5cad; }
.imgrec-gallery a:focus-visible { outline: 3px solid #0b5cad; outline-offset: 2px; }
.imgrec-gallery figcaption { margin: 4px 0 0; padding: 0; font-size: 12px; text-align: left; color: inherit; }
.imgrec-gallery figcaption span { display: block; overflow-wrap: anywhere; }
.imgrec-gallery .mark { width: fit-content; max-width: 100%; box-sizing: border-box; padding: 0 6px;
  border-radius: 4px; background: #0b5cad; color: #fff; font-weight: 600; }
.imgrec-gallery .marked { outline: 3px solid #0b5cad; outline-offset: 1px; }
.imgrec-gallery .score { font-variant-numeric: tabular-nums; }
.imgrec-gallery .parts { position: relative; display: block; height: 8px; margin: 4px 0 0; }
.imgrec-gallery .parts i { position: absolute; top: 0; bottom: 0; border-radius: 1px; }
.imgrec-gallery .parts b { position: absolute; top: -2px; bottom: -2px; width: 1px; background: currentColor; }
.imgrec-gallery .legend { font-size: 12px; margin: 0 0 .4em; }
.imgrec-gallery .legend span { margin-right: 1em; white-space: nowrap; }
.imgrec-gallery .legend i { display: inline-block; width: .8em; height: .8em; margin-right: .35em; border-radius: 2px; }
.imgrec-gallery [data-item]:focus-visible { outline: 3px solid #0b5cad; outline-offset: 2px; border-radius: 6px; }
.imgrec-gallery [role=button] { cursor: pointer; }
"""
"""Style of the HTML face, for a page that holds several galleries."""

PART_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7f7f7f", "#b8a900")
"""Colours of what a score is made of, in the order of the parts: those of Okabe and Ito, which all eyes tell apart."""

_ROW = Markup('<p>{title}</p>\n{legend}<ul aria-label="{title}">\n{cells}</ul>\n')
_CELL = Markup(
    '<figure style="width:{size}px" data-item="{item}"{mark} title="{alt}">{picture}'
    "<figcaption>{lines}</figcaption></figure>"
)
_PICTURE = Markup('<img class="picture{marked}" src="{source}" style="width:{size}px;height:{height}px" alt="{alt}">')
_TILE = Markup('<div class="tile{marked}" style="width:{size}px;height:{height}px">{text}<br>(no picture)</div>')
_BAR = Markup('<i style="left:{left:.1f}%;width:{width:.1f}%;background:{colour}"></i>')


def gallery_html(
    title: str,
    rows: Sequence[Row],
    images: ImageStore | None,
    size: int = 96,
    *,
    style: bool = True,
    link: Callable[[int], str] | None = None,
) -> Markup:
    """Rows of items as HTML, without any reference to the outside; every picture has an alternative text.

    Pictures stand in their own proportions in frames of one size, so that rows stay straight.

    Args:
        title: what is shown.
        rows: the rows.
        images: the catalogue's pictures; where one is missing, text stands in its place.
        size: width of a picture's frame in CSS pixels.
        style: whether to put `STYLE` in; without it the page must.
        link: the address to which an item's picture leads; None: a picture leads nowhere.
    """
    # Twice the size at which it is shown, for screens of high density.
    pictures = [[cell_uri(cell, images, 2 * size) for cell in row.cells] for row in rows]
    height = frame_height(size, [each[1] for row in pictures for each in row if each])
    sums = [_sums(cell) for row in rows for cell in row.cells if cell.parts]
    axis = (max((-low for low, _ in sums), default=0.0), max((high for _, high in sums), default=0.0))

    def cells_html(row: Row, found: Sequence[tuple[str, float] | None]) -> Markup:
        cells = [
            _cell(cell, each and each[0], size, height, axis, link) for cell, each in zip(row.cells, found, strict=True)
        ]
        # The last two stay together, so that no line of pictures holds one alone.
        groups = [*cells[:-2], Markup().join(cells[-2:])] if len(cells) > 2 else cells
        return Markup().join(Markup("<li>{}</li>\n").format(group) for group in groups)

    return Markup('{}<div class="imgrec-gallery">\n<p class="title">{}</p>\n{}</div>\n').format(
        Markup("<style>{}</style>\n").format(Markup(STYLE)) if style else "",
        title,
        Markup().join(
            _ROW.format(title=row.title, legend=_legend(row), cells=cells_html(row, found))
            for row, found in zip(rows, pictures, strict=True)
        ),
    )


def _cell(
    cell: Cell,
    source: str | None,
    size: int,
    height: int,
    axis: tuple[float, float],
    link: Callable[[int], str] | None,
) -> Markup:
    marked = " marked" if cell.mark else ""
    # Where the caption is the name alone, the same words once more would say nothing to those who hear the page.
    alt = f"picture of {cell.alt}" if (cell.alt,) == cell.caption else cell.alt
    if source:
        picture = _PICTURE.format(marked=marked, source=source, size=size, height=height, alt=alt)
    else:
        text = cell.caption[0] if cell.caption else str(cell.item)
        picture = _TILE.format(marked=marked, size=size, height=height, text=text)
    if link is not None and cell.item >= 0:
        picture = Markup('<a href="{}">{}</a>').format(link(cell.item), picture)
    # The bar stands right below the picture, where it has the same height in all cells.
    lines = _parts(cell, axis)
    if cell.mark:
        lines += Markup('<span class="mark">{}</span>').format(cell.mark)
    lines += Markup().join(Markup("<span>{}</span>").format(line) for line in cell.caption if line)
    if cell.score is not None:
        lines += Markup('<span class="score">{:.3f}</span>').format(cell.score)
    mark = Markup(' data-mark="{}"').format(cell.mark) if cell.mark else ""
    return _CELL.format(size=size, alt=cell.alt, item=cell.item, mark=mark, picture=picture, lines=lines)


def _sums(cell: Cell) -> tuple[float, float]:
    """The sum of the parts that lower a score, and of those that raise it."""
    values = [value for _, value in cell.parts]
    return sum(value for value in values if value < 0), sum(value for value in values if value > 0)


def _parts(cell: Cell, axis: tuple[float, float]) -> Markup:
    """The parts of a score as one bar: from the axis to the right what raises it, to the left what lowers it."""
    if not cell.parts:
        return Markup()
    whole = sum(axis) or 1.0
    zero = 100 * axis[0] / whole
    left = right = zero
    bars = Markup()
    for (_, value), colour in zip(cell.parts, _colours(len(cell.parts)), strict=True):
        width = 100 * abs(value) / whole
        left -= width if value < 0 else 0.0
        bars += _BAR.format(left=left if value < 0 else right, width=width, colour=colour)
        right += width if value >= 0 else 0.0
    return Markup('<span class="parts" aria-hidden="true">{}<b style="left:{:.1f}%"></b></span>').format(bars, zero)


def _legend(row: Row) -> Markup:
    names = next(([name for name, _ in cell.parts] for cell in row.cells if cell.parts), [])
    if not names:
        return Markup()
    entries = Markup().join(
        Markup('<span><i style="background:{}"></i>{}</span>').format(colour, name)
        for name, colour in zip(names, _colours(len(names)), strict=True)
    )
    return Markup('<p class="legend">{}make up each score; what lowers it stands left of the line</p>\n').format(
        entries
    )


def _colours(number: int) -> list[str]:
    return [PART_COLOURS[place % len(PART_COLOURS)] for place in range(number)]

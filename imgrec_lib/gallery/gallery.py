"""A gallery: rows of items as pictures. One object, whose faces are HTML, a contact sheet and a widget (`live`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from imgrec_lib.data.images import ImageStore
from imgrec_lib.files import replacing
from imgrec_lib.gallery.html import gallery_html
from imgrec_lib.gallery.png import contact_sheet
from imgrec_lib.gallery.rows import Row
from imgrec_lib.options import Count


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
        return f"Gallery({self.title!r}, {len(self.rows)} rows, {len(self.items)} items)"

    def _repr_html_(self) -> str:
        return self.html()

    @property
    def items(self) -> list[int]:
        """The items of all cells, row by row."""
        return [cell.item for row in self.rows for cell in row.cells]

    def html(self, size: Count = 96, *, style: bool = True, link: Callable[[int], str] | None = None) -> Markup:
        """Static HTML, see `gallery_html`."""
        return gallery_html(self.title, self.rows, self.images, size, style=style, link=link)

    def png(self, path: Path, size: Count = 96) -> Path:
        """Write a contact sheet, see `contact_sheet`.

        Args:
            path: where to write; replaced whole.
            size: width of a picture's frame in pixels.

        Returns:
            `path`.
        """
        with replacing(Path(path)) as temporary:
            contact_sheet(self.title, self.rows, self.images, size).save(temporary, format="PNG")
        return Path(path)

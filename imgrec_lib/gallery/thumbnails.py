"""The pictures of a gallery as JPEGs in their own proportions, each made once and kept in the cache."""

from __future__ import annotations

import base64
import contextlib
import io
from functools import lru_cache

import numpy as np
from PIL import Image

from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError
from imgrec_lib.files import cache_folder, replacing
from imgrec_lib.gallery.rows import Cell, Row

TALLEST = 1.5
"""Height of a picture's frame by its width, at most: a taller picture stands in the frame with margins."""


def cell_picture(cell: Cell, images: ImageStore | None, side: int) -> Image.Image | None:
    """What a cell shows: its own picture, or its item's in the catalogue.

    Args:
        cell: the cell.
        images: the catalogue's pictures.
        side: the longer side at most, in pixels; nothing is enlarged.

    Returns:
        An RGB picture; None where there is none.
    """
    if cell.picture is not None:
        image = Image.fromarray(cell.picture)
        image.thumbnail((side, side), Image.Resampling.BICUBIC)
        return image
    if images is None or not images.shows(cell.item):
        return None
    if not _is_kept(images, cell.item):
        return images.photograph(cell.item, side)
    return Image.open(io.BytesIO(thumbnail(images, cell.item, side)))


@lru_cache(8192)
def thumbnail(images: ImageStore, item: int, side: int) -> bytes:
    """An item's photograph as a JPEG, in its own proportions; kept in memory, and on the disk where its file is large.

    Args:
        images: the catalogue's pictures.
        item: item index.
        side: the longer side at most, in pixels.
    """
    if not _is_kept(images, item):
        # The store lies open in memory already: to keep a file beside it would save nothing.
        return encoded(images.photograph(item, side))
    kept = cache_folder(None, "thumbnails") / images.fingerprint / str(side) / f"{item}.jpg"
    with contextlib.suppress(OSError):
        return kept.read_bytes()
    made = encoded(images.photograph(item, side))
    # A cache that is full or that cannot be written to is no reason to show no picture.
    with contextlib.suppress(OSError, InputError), replacing(kept) as temporary:
        temporary.write_bytes(made)
    return made


def _is_kept(images: ImageStore, item: int) -> bool:
    return images.prepared and bool(images.originals) and images.originals[item] is not None


def encoded(image: Image.Image) -> bytes:
    """A picture as a JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def data_uri(picture: Image.Image | bytes) -> str:
    """A picture, or a JPEG, inside its own address."""
    data = encoded(picture) if isinstance(picture, Image.Image) else picture
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


@lru_cache(8192)
def thumbnail_uri(images: ImageStore, item: int, side: int) -> tuple[str, float]:
    """An item's photograph as it stands in HTML, and its height by its width."""
    data = thumbnail(images, item, side)
    with Image.open(io.BytesIO(data)) as image:
        return data_uri(data), image.height / image.width


def cell_uri(cell: Cell, images: ImageStore | None, side: int) -> tuple[str, float] | None:
    """What a cell shows, as it stands in HTML, and its height by its width; None where it has no picture."""
    if cell.picture is not None:
        image = Image.fromarray(np.asarray(cell.picture))
        image.thumbnail((side, side), Image.Resampling.BICUBIC)
        return data_uri(image), image.height / image.width
    if images is None or not images.shows(cell.item):
        return None
    return thumbnail_uri(images, cell.item, side)


def frame_height(size: int, shapes: list[float]) -> int:
    """Height in pixels of the frames of a gallery whose pictures are so much taller than wide, at most `TALLEST`."""
    return round(size * min(TALLEST, max([*shapes, 1.0])))


def frame_of(rows: tuple[Row, ...], images: ImageStore | None, size: int) -> int:
    """Height in pixels of the frames of a gallery's pictures, which are `size` pixels wide."""
    found = (cell_uri(cell, images, 2 * size) for row in rows for cell in row.cells)
    return frame_height(size, [each[1] for each in found if each])

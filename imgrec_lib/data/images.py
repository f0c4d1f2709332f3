"""The image store: every item's picture, decoded once, resized and memory-mapped.

On-disk format, version 1. A store is a folder with two files. `pixels.npy` is a plain NumPy file (format 1.0, C order)
of shape (n_items, size, size, 3), dtype uint8, sRGB; row i is item i's picture. Where some pictures have fewer pixels
than that square, these are kept as they were: then the file has one dimension, picture stands behind picture, and
`shapes` in the index is a list of all their [height, width]. `index.json` is an object: `format` ("imgrec-images"),
`version` (1), `size`, `fit`, `resample`, `ids` (the items' ids in row order), `problems` (a list of [row, reason],
ascending: the items whose picture is missing or broken, and whose row is white), `repairs` (a list of [row, what was
repaired], ascending), `fingerprint` (the first 16 hexadecimal digits of the SHA-256 of the text "n_items size", the
bytes of all pictures as they are kept, the shapes as int64 where they are listed, and one byte an item that is 1 where
the picture is present), `source` (a fingerprint of what the pictures were made from: a store is made again when it no
longer agrees), `sources` (the same of each item, "" where it has none: rows that agree are taken over), `reading` (what
the reader was asked for, or null: of stores of one reading the last alone is kept), and `earlier` (a list of objects:
the stores that rows were taken over from, see `Earlier`). The folder is written under a temporary name and renamed, so
a store that is there is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imgrec_lib.data.decoding import Source, fitted, original_picture
from imgrec_lib.data.decoding import decode as decode  # where it stood before, and where scripts look for it
from imgrec_lib.errors import InputError, one_line, tell

FORMAT, VERSION = "imgrec-images", 1
INDEX, PIXELS = "index.json", "pixels.npy"


@dataclass(frozen=True, eq=False)
class Earlier:
    """A store that rows of another were taken over from, so that what was computed from them can be taken over too.

    Attributes:
        fingerprint: its fingerprint.
        replaced: whether the other took its place, and it is no longer there.
        rows: (n_items,) int64: the row there of each item here, -1 where its picture was made anew.
    """

    fingerprint: str
    replaced: bool
    rows: np.ndarray


class FittedPixels:
    """(n_items, size, size, 3) uint8, read like an array, of which small pictures are enlarged when they are read.

    Args:
        kept: the pixels of all pictures as they are kept, one behind the other, uint8.
        shapes: (n_items, 2) height and width of each.
        size, fit, resample: see `decoding.fitted`.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, kept: np.ndarray, shapes: np.ndarray, size: int, fit: str, resample: str) -> None:
        self.shape = (len(shapes), size, size, 3)
        self._kept, self._shapes, self._form = kept, shapes, (size, fit, resample)
        self._ends = np.cumsum(3 * shapes.prod(axis=1))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        rows = np.arange(len(self))[first]
        found = np.empty((rows.size, *self.shape[1:]), np.uint8)
        for place, row in enumerate(rows.ravel().tolist()):
            found[place] = fitted(self.kept(row), *self._form)
        return found.reshape(*rows.shape, *self.shape[1:])[(*[slice(None)] * rows.ndim, *rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def kept(self, row: int) -> np.ndarray:
        """A picture as it is kept: (height, width, 3)."""
        height, width = self._shapes[row]
        return self._kept[self._ends[row] - 3 * height * width : self._ends[row]].reshape(height, width, 3)


@dataclass(frozen=True, eq=False)
class ImageStore:
    """The pictures of a catalogue.

    Attributes:
        pixels: (n_items, size, size, 3) uint8, read-only and usually memory-mapped: an array, or `FittedPixels`.
        present: (n_items,) bool; False where the picture is missing or broken and a white one stands in.
        fingerprint: 16 hexadecimal digits of pixels and `present`.
        problems: (item id, reason) of every item whose picture is missing or broken.
        originals: where the picture of each item came from, in index order, for showing it in its own proportions;
            empty where that is not known.
        repairs: (item id, what was repaired) of every item whose picture was damaged and is used all the same.
        earlier: stores that pictures were taken over from.
    """

    pixels: np.ndarray
    present: np.ndarray
    fingerprint: str
    problems: tuple[tuple[str, str], ...] = ()
    originals: Sequence[Source] = ()
    repairs: tuple[tuple[str, str], ...] = ()
    earlier: tuple[Earlier, ...] = ()

    @classmethod
    def from_array(cls, pixels: np.ndarray, present: np.ndarray | None = None) -> ImageStore:
        """A store in memory.

        Args:
            pixels: (n_items, size, size, 3) uint8.
            present: (n_items,) bool; by default all are.

        Raises:
            InputError: the array has another shape or dtype.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (pixels.shape[1],) * 2 + (3,):
            raise InputError(
                "an image store needs a uint8 array of shape (items, size, size, 3), "
                f"not {pixels.dtype} of shape {pixels.shape}."
            )
        present = np.ones(len(pixels), dtype=bool) if present is None else np.asarray(present, dtype=bool)
        return cls(pixels, present, _fingerprint_of_squares(pixels, present))

    def __len__(self) -> int:
        return len(self.pixels)

    def is_known_as(self, fingerprint: str) -> bool:
        """Whether it is the fingerprint of these pictures: the store's own, or the one that they have where small ones
        are kept enlarged, as in memory and in stores of an earlier version."""
        return fingerprint == self.fingerprint or (
            isinstance(self.pixels, FittedPixels) and fingerprint == _fingerprint_of_squares(self.pixels, self.present)
        )

    @property
    def prepared(self) -> bool:
        """Whether the pictures are there already, or will be prepared when they are first looked at."""
        return "pixels" in vars(self)

    @property
    def size(self) -> int:
        """Height and width of the pictures, in pixels."""
        return int(self.pixels.shape[1])

    def shows(self, item: int) -> bool:
        """Whether there is a picture of an item."""
        return bool(self.present[item])

    def photograph(self, item: int, size: int) -> Image.Image:
        """One item's picture as people see it: from the original file, in its own proportions, never enlarged.

        Where there is no original any more, or it can no longer be read, what is stored stands in for it.

        Args:
            item: item index.
            size: the longer side at most, in pixels.

        Returns:
            An RGB picture.
        """
        image = Image.fromarray(np.asarray(self.pixels[item]))
        source = self.originals[item] if self.originals else None
        if source is not None and self.present[item]:
            with suppress(ValueError):
                image = original_picture(source, size)
        image.thumbnail((size, size), Image.Resampling.BICUBIC)
        return image

    def thumbnail(self, item: int, size: int | None = None) -> Image.Image:
        """One item's picture as it is stored, which is what networks see: a square, whatever the photograph was.

        Args:
            item: item index.
            size: height and width wanted, in pixels; by default as stored.

        Returns:
            An RGB picture.
        """
        image = Image.fromarray(np.asarray(self.pixels[item]))
        return image if size in (None, self.size) else image.resize((size, size), Image.Resampling.BICUBIC)


class PendingImages(ImageStore):
    """A store that is prepared when a network is to look at it; people are shown the photographs without.

    Args:
        prepare: makes or opens the store.
        sources: where the picture of each item comes from.
    """

    def __init__(self, prepare: Callable[[], ImageStore], sources: Sequence[Source]) -> None:
        vars(self).update(_prepare=prepare, _sources=sources)

    def __getattribute__(self, name: str) -> Any:
        known = object.__getattribute__(self, "__dict__")
        if name in ImageStore.__dataclass_fields__ and "pixels" not in known:
            known.update(vars(known["_prepare"]()))
        return object.__getattribute__(self, name)

    def shows(self, item: int) -> bool:
        """Whether there is a picture of an item; while none was decoded, whether there is a file."""
        if self.prepared:
            return super().shows(item)
        source = vars(self)["_sources"][item]
        return source is not None and not (isinstance(source, Path) and not source.is_file())

    def photograph(self, item: int, size: int) -> Image.Image:
        """See `ImageStore.photograph`; a picture that cannot be decoded is white."""
        if self.prepared:
            return super().photograph(item, size)
        try:
            return original_picture(vars(self)["_sources"][item], size)
        except ValueError:
            return Image.new("RGB", (size, size), "white")


def open_images(folder: Path) -> ImageStore:
    """Open a store, memory-mapped.

    Warns when pictures are missing or broken, or were repaired.

    Raises:
        InputError: there is no store, or pixels and index do not fit each other.
    """
    folder = Path(folder)
    remedy = "delete the folder and prepare the images again."
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no image store in {folder}: prepare the images first.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"the image index {folder / INDEX} cannot be read ({one_line(error)}): {remedy}") from None
    try:
        if (index["format"], index["version"]) != (FORMAT, VERSION):
            raise ValueError("another format")
        ids, size, digits = list(index["ids"]), int(index["size"]), str(index["fingerprint"])
        present = np.ones(len(ids), dtype=bool)
        present[[int(row) for row, _ in index["problems"]]] = False
        problems, repairs = (
            tuple((str(ids[row]), str(reason)) for row, reason in noted)
            for noted in (index["problems"], index.get("repairs", []))
        )
        earlier = tuple(map(_earlier, index.get("earlier", [])))
        shapes = np.array(index["shapes"], np.int64).reshape(len(ids), 2) if "shapes" in index else None
        form = ("", "") if shapes is None else (str(index["fit"]), str(index["resample"]))
    except (KeyError, TypeError, ValueError, IndexError):
        raise InputError(f"the image index {folder / INDEX} is not of version 1 of the format: {remedy}") from None
    try:
        # An empty array cannot be memory-mapped.
        pixels: Any = (
            np.lib.format.open_memmap(folder / PIXELS, mode="r") if ids else np.empty((0, size, size, 3), "u1")
        )
        if shapes is not None and pixels.shape == (3 * shapes.prod(axis=1).sum(),):
            pixels = FittedPixels(pixels, shapes, size, *form)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'pixels.npy'} cannot be read ({one_line(error)}): {remedy}") from None
    if pixels.shape != (len(ids), size, size, 3) or pixels.dtype != np.uint8:
        raise InputError(
            f"{folder / 'pixels.npy'} holds {pixels.dtype} of shape {pixels.shape} but its index speaks of "
            f"{len(ids)} pictures of {size} pixels: {remedy}"
        )
    if problems:
        tell(
            f"{len(problems)} of {len(ids)} items have no usable picture and show white; the first is item "
            f"{problems[0][0]} ({problems[0][1]}); all are listed under 'problems' in {folder / INDEX}."
        )
    if repairs:
        tell(
            f"{len(repairs)} of {len(ids)} pictures are damaged and were repaired; the first is that of item "
            f"{repairs[0][0]} ({repairs[0][1]}); all are listed under 'repairs' in {folder / INDEX}."
        )
    return ImageStore(pixels, present, digits, problems, repairs=repairs, earlier=earlier)


def tell_of_enlargement(images: ImageStore, size: int) -> None:
    """Say so where a network looks at pictures of more pixels than are stored.

    Args:
        images: the pictures.
        size: height and width of the network's input, in pixels.
    """
    if size > images.size:
        tell(
            f"the pictures are stored with {images.size} pixels a side and are enlarged to {size} for the network, "
            f"which adds no detail: load the dataset with image_size={size}, or say size={images.size}."
        )


def _earlier(written: dict[str, Any]) -> Earlier:
    return Earlier(str(written["fingerprint"]), bool(written["replaced"]), np.array(written["rows"], dtype=np.int64))


def _fingerprint_of_squares(pixels: np.ndarray | FittedPixels, present: np.ndarray) -> str:
    digest = new_digest(len(pixels), pixels.shape[1])
    for row in range(len(pixels)):
        digest.update(pixels[row].tobytes())
    digest.update(present.tobytes())
    return digest.hexdigest()[:16]


def new_digest(n_items: int, size: int) -> hashlib._Hash:
    """The beginning of a store's fingerprint, to be fed with its rows."""
    return hashlib.sha256(f"{n_items} {size}".encode())

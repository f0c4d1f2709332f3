"""The image store: every item's picture, decoded once, resized and memory-mapped.

On-disk format, version 1. A store is a folder with two files. `pixels.npy` is a plain NumPy file (format 1.0,
C order) of shape (n_items, size, size, 3), dtype uint8, sRGB; row i is item i's picture. `index.json` is an
object: `format` ("imgrec-images"), `version` (1), `size`, `fit`, `resample`, `ids` (the items' ids in row
order), `problems` (a list of [row, reason], ascending: the items whose picture is missing or broken, and
whose row is white), `fingerprint` (the first 16 hexadecimal digits of the SHA-256 of the text "n_items size",
the bytes of all rows, and one byte an item that is 1 where the picture is present), and `source` (a
fingerprint of what the pictures were made from: a store is made again when it no longer agrees). The folder
is written under a temporary name and renamed, so a store that is there is complete.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

from imgrec_lib.errors import InputError, one_line, unknown_name
from imgrec_lib.files import cache_folder, cached, fingerprint, write_json

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 100_000_000
MAX_BYTES = 64_000_000
LARGE = 16_000_000
"""Pictures of more pixels are decoded one at a time, so that sixteen threads do not need sixteen times the memory."""
_large = threading.Lock()
RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}
Fit = Literal["squash", "pad", "crop"]
Resample = Literal["bicubic", "bilinear", "nearest"]
FITS = get_args(Fit)
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class FileSlice:
    """An encoded picture inside a larger file.

    Attributes:
        path: the file.
        offset: first byte.
        length: number of bytes.
        as_text: whether the file holds UTF-8 text whose code points are the bytes (Python 3 writes bytes so at
            pickle protocol 2).
    """

    path: Path
    offset: int
    length: int
    as_text: bool = False


Source = Path | FileSlice | bytes | Image.Image | np.ndarray | None
"""Where one picture comes from; None means that the item has none."""


@dataclass(frozen=True, eq=False)
class ImageStore:
    """The pictures of a catalogue.

    Attributes:
        pixels: (n_items, size, size, 3) uint8, read-only and usually memory-mapped.
        present: (n_items,) bool; False where the picture is missing or broken and a white one stands in.
        fingerprint: 16 hexadecimal digits of pixels and `present`.
        problems: (item id, reason) of every item whose picture is missing or broken.
        originals: where the picture of each item came from, in index order, for showing it in its own proportions;
            empty where that is not known.
    """

    pixels: np.ndarray
    present: np.ndarray
    fingerprint: str
    problems: tuple[tuple[str, str], ...] = ()
    originals: Sequence[Source] = ()

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
        digest = _new_digest(len(pixels), pixels.shape[1])
        for row in pixels:
            digest.update(row.tobytes())
        digest.update(present.tobytes())
        return cls(pixels, present, digest.hexdigest()[:16])

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def size(self) -> int:
        """Height and width of the pictures, in pixels."""
        return int(self.pixels.shape[1])

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


def prepare_images(
    sources: Iterable[Source],
    ids: Sequence[str],
    folder: Path,
    *,
    size: int = 224,
    fit: str = "squash",
    resample: str = "bicubic",
    workers: int | None = None,
    progress: bool = True,
    source_key: str | None = None,
) -> ImageStore:
    """Decode, resize and store the pictures of a catalogue, or open the store if it is already there.

    Pictures stream through a bounded number of threads: memory does not grow with the catalogue. Two
        processes that
    prepare the same folder do the work once. EXIF orientation is applied, transparency becomes white, and of
    an animation the first frame is taken. A picture that is missing, unreadable, above 64 MB or above 100
    megapixels becomes white and is listed in the store's `problems`.

    Args:
        sources: one entry an item, in index order.
        ids: the items' ids, in the same order.
        folder: where the store lies or will lie; a store made from other sources is replaced.
        size: height and width, in pixels.
        fit: "squash" changes the aspect ratio (the papers' choice), "pad" adds white, "crop" keeps the
            centre.
        resample: "bicubic", "bilinear" or "nearest".
        workers: number of threads; by default one a core, at most 16.
        progress: whether to show a progress bar.
        source_key: what identifies the sources, for an iterator that draws them one by one. By default it is
            computed: paths with their sizes and modification times, and the bytes of what is in memory.

    Returns:
        The store, memory-mapped.

    Raises:
        InputError: an unknown `fit` or `resample`, a `size` below 1, not as many sources as ids, or too
            little space on the disk.
    """
    if fit not in FITS:
        raise unknown_name("fit", fit, FITS)
    if resample not in RESAMPLING:
        raise unknown_name("resample", resample, RESAMPLING)
    if size < 1:
        raise InputError(f"image size must be at least 1 pixel, not {size}.")
    if source_key is None:
        sources = list(sources)
        source_key = _source_key(sources)
    key = fingerprint(source_key, [str(i) for i in ids], size, fit, resample)
    folder = Path(folder)

    def make(temporary: Path) -> None:
        needed, free = len(ids) * size * size * 3, shutil.disk_usage(folder.parent).free
        if needed > free:
            raise InputError(
                f"the image store {folder} needs {needed / 1e9:.1f} GB but only {free / 1e9:.1f} GB are free "
                "there: choose another cache folder (IMGREC_CACHE) or a smaller image size."
            )
        _write_store(temporary, sources, [str(i) for i in ids], size, fit, resample, workers, progress, key)

    return open_images(cached(folder, make, partial(_is_made_from, key)))


def cached_images(
    name: str,
    sources: Sequence[Source],
    ids: Sequence[str],
    cache: str | Path | None = None,
    *,
    size: int = 224,
    fit: str = "squash",
    resample: str = "bicubic",
    progress: bool = True,
) -> ImageStore:
    """`prepare_images` in a folder of the cache whose name tells datasets, catalogues and settings apart.

    Args:
        name: the dataset's name.
        cache: the cache folder; by default `default_cache()`.
        sources, ids, size, fit, resample, progress: see `prepare_images`.
    """
    source_key = _source_key(sources)
    digits = fingerprint(source_key, list(ids), fit, resample)
    store = prepare_images(
        sources,
        ids,
        # The name may be anything; as part of a path it is reduced to letters, digits and dots.
        cache_folder(cache, "images") / f"{re.sub(r'[^A-Za-z0-9.]', '-', name)[:80]}-{size}-{digits}",
        size=size,
        fit=fit,
        resample=resample,
        progress=progress,
        source_key=source_key,
    )
    # What lies in memory as a whole is not kept there for the sake of proportions.
    return replace(store, originals=[each if isinstance(each, Path | FileSlice) else None for each in sources])


def resized(images: ImageStore, size: int, *, resample: str = "bicubic", cache: Path | None = None) -> ImageStore:
    """The same pictures in another size, made once and kept in the cache.

    Args:
        images: the pictures.
        size: height and width, in pixels.
        resample: see `prepare_images`.
        cache: the cache folder; by default `default_cache()`.

    Returns:
        `images` itself if it has that size, else another store, memory-mapped.

    Raises:
        InputError: see `prepare_images`.
    """
    if images.size == size:
        return images
    folder = cache_folder(cache, "images") / f"resized-{size}-{resample}-{images.fingerprint}"
    pictures = (pixels if here else None for pixels, here in zip(images.pixels, images.present, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the original store has told which items have no picture
        return prepare_images(
            pictures,
            [str(row) for row in range(len(images))],
            folder,
            size=size,
            resample=resample,
            progress=False,
            source_key=images.fingerprint,
        )


def open_images(folder: Path) -> ImageStore:
    """Open a store, memory-mapped.

    Warns when pictures are missing or broken.

    Raises:
        InputError: there is no store, or pixels and index do not fit each other.
    """
    folder = Path(folder)
    remedy = "delete the folder and prepare the images again."
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no image store in {folder}: prepare the images first.") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"the image index {folder / 'index.json'} cannot be read ({one_line(error)}): {remedy}"
        ) from None
    try:
        if (index["format"], index["version"]) != ("imgrec-images", 1):
            raise ValueError("another format")
        ids, size, digits = list(index["ids"]), int(index["size"]), str(index["fingerprint"])
        present = np.ones(len(ids), dtype=bool)
        present[[int(row) for row, _ in index["problems"]]] = False
        problems = tuple((str(ids[row]), str(reason)) for row, reason in index["problems"])
    except (KeyError, TypeError, ValueError, IndexError):
        raise InputError(
            f"the image index {folder / 'index.json'} is not of version 1 of the format: {remedy}"
        ) from None
    try:
        # An empty array cannot be memory-mapped.
        pixels = (
            np.lib.format.open_memmap(folder / "pixels.npy", mode="r") if ids else np.empty((0, size, size, 3), "u1")
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'pixels.npy'} cannot be read ({one_line(error)}): {remedy}") from None
    if pixels.shape != (len(ids), size, size, 3) or pixels.dtype != np.uint8:
        raise InputError(
            f"{folder / 'pixels.npy'} holds {pixels.dtype} of shape {pixels.shape} but its index speaks of "
            f"{len(ids)} pictures of {size} pixels: {remedy}"
        )
    if problems:
        warnings.warn(
            f"{len(problems)} of {len(ids)} items have no usable picture and show white; the first is item "
            f"{problems[0][0]} ({problems[0][1]}); all are listed under 'problems' in {folder / 'index.json'}.",
            stacklevel=2,
        )
    return ImageStore(pixels, present, digits, problems)


def decode(source: Source, size: int, fit: str = "squash", resample: str = "bicubic") -> np.ndarray:
    """One picture as it lies in the store.

    Args:
        source: where the picture comes from.
        size, fit, resample: see `prepare_images`.

    Returns:
        (size, size, 3) uint8.

    Raises:
        ValueError: the picture is missing or broken; the message says why.
    """
    method = RESAMPLING[resample]

    def fitted(image: Image.Image) -> Image.Image:
        if fit == "pad":
            return ImageOps.pad(image, (size, size), method, WHITE)
        if fit == "crop":
            return ImageOps.fit(image, (size, size), method)
        return image.resize((size, size), method)

    return np.asarray(_decode(source, None if resample == "nearest" else 2 * size, fitted))


def original_picture(source: Source, size: int) -> Image.Image:
    """One picture in its own proportions, upright, in RGB.

    Args:
        source: where the picture comes from.
        size: the longer side at most, in pixels; a smaller picture is not enlarged.

    Raises:
        ValueError: the picture is missing or broken; the message says why.
    """

    def within(image: Image.Image) -> Image.Image:
        image.thumbnail((size, size), Image.Resampling.BICUBIC)
        return image

    return _decode(source, size, within)


def _decode(source: Source, at_least: int | None, then: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """One picture, decoded at not less than `at_least` pixels a side, upright, in RGB, and what `then` makes of it."""
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or 0 in source.shape:
            raise ValueError(f"an array of {source.dtype} and shape {source.shape} is no picture")
    elif not isinstance(source, Image.Image):
        source = _read(source)
    try:
        image = _open(source, at_least)
        with _large if image.width * image.height > LARGE else nullcontext():
            return then(_upright_rgb(image))
    # Pillow's decoders raise nearly anything on damaged data.
    except Exception as error:
        raise ValueError(f"the picture is broken: {error or type(error).__name__}") from None


def _read(source: Path | FileSlice | bytes | None) -> bytes:
    """The encoded picture; ValueError says why there is none."""
    if source is None:
        raise ValueError("the item has no picture")
    if isinstance(source, bytes):
        length = len(source)
    elif isinstance(source, FileSlice):
        length = source.length
    elif os.path.isfile(source):  # unlike the method of Path it takes any name, however long or odd
        length = source.stat().st_size
    else:
        raise ValueError(f"there is no file {source}")
    if length > MAX_BYTES:
        raise ValueError(f"the picture has {length / 1e6:.0f} MB, more than the {MAX_BYTES / 1e6:.0f} admitted")
    if isinstance(source, bytes):
        return source
    try:
        with open(source.path if isinstance(source, FileSlice) else source, "rb") as file:
            file.seek(source.offset if isinstance(source, FileSlice) else 0)
            data = file.read(length)
        return data.decode().encode("latin-1") if isinstance(source, FileSlice) and source.as_text else data
    except (OSError, UnicodeError) as error:
        raise ValueError(f"the picture cannot be read: {error}") from None


def _open(source: bytes | Image.Image | np.ndarray, at_least: int | None) -> Image.Image:
    """The picture, not decoded yet. A JPEG may come in at reduced scale, but not below `at_least` pixels a side."""
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    if isinstance(source, Image.Image):
        return source
    try:
        image = Image.open(io.BytesIO(source), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file") from None
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are more than the {MAX_PIXELS:,} admitted")
    if at_least is not None:
        image.draft(None, (at_least, at_least))
    return image


def _upright_rgb(image: Image.Image) -> Image.Image:
    """Decode to upright RGB, with white where the picture is transparent."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip
        return Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*WHITE, 255)), image).convert("RGB")
    return image.convert("RGB")


def _decoded(
    sources: Iterable[Source], size: int, fit: str, resample: str, workers: int
) -> Iterator[tuple[np.ndarray | None, str]]:
    """Decode in threads, in order, a few pictures ahead: (pixels, "") or (None, reason)."""

    def one(source: Source) -> tuple[np.ndarray | None, str]:
        try:
            return decode(source, size, fit, resample), ""
        except ValueError as error:
            return None, str(error)

    pool = ThreadPoolExecutor(workers)
    ahead: deque[Future[tuple[np.ndarray | None, str]]] = deque()
    try:
        for source in sources:
            ahead.append(pool.submit(one, source))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write_store(
    folder: Path,
    sources: Iterable[Source],
    ids: list[str],
    size: int,
    fit: str,
    resample: str,
    workers: int | None,
    progress: bool,
    key: str,
) -> None:
    """Write the two files of a store into `folder`."""
    problems: list[tuple[int, str]] = []
    present = np.ones(len(ids), dtype=bool)
    white = np.full((size, size, 3), 255, dtype=np.uint8)
    digest = _new_digest(len(ids), size)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(ids), size, size, 3)}
    pictures = _decoded(sources, size, fit, resample, workers or min(os.cpu_count() or 1, 16))
    rows = 0
    # Written as a stream, not through a memory map, for which a full disk is a fatal signal.
    with open(folder / "pixels.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        bar = tqdm(pictures, total=len(ids), desc="images", unit="image", disable=not progress)
        for rows, (pixels, reason) in enumerate(bar, start=1):
            if rows > len(ids):
                break
            if pixels is None:
                problems.append((rows - 1, reason))
                present[rows - 1] = False
                pixels = white
            data = pixels.tobytes()
            digest.update(data)
            file.write(data)
    if rows != len(ids):
        raise InputError(f"there are {len(ids)} item ids but {'more' if rows > len(ids) else rows} image sources.")
    digest.update(present.tobytes())
    write_json(
        folder / "index.json",
        {
            "format": "imgrec-images",
            "version": 1,
            "size": size,
            "fit": fit,
            "resample": resample,
            "fingerprint": digest.hexdigest()[:16],
            "source": key,
            "problems": problems,
            "ids": ids,
        },
    )


def _new_digest(n_items: int, size: int) -> hashlib._Hash:
    return hashlib.sha256(f"{n_items} {size}".encode())


def _source_key(sources: Iterable[Source]) -> str:
    """Fingerprint of what the sources are: a changed, added or removed file changes it."""
    files: dict[Path, tuple[str, int, int] | None] = {}

    def state(path: Path) -> tuple[str, int, int] | None:
        if path not in files:
            try:
                stat = path.stat()
                files[path] = (str(path), stat.st_size, stat.st_mtime_ns)
            except (OSError, ValueError):
                files[path] = None
        return files[path]

    def describe(source: Source) -> object:
        if isinstance(source, Path):
            return state(source)
        if isinstance(source, FileSlice):
            return (state(source.path), source.offset, source.length)
        if isinstance(source, Image.Image):
            return fingerprint(np.asarray(source), source.mode)
        return None if source is None else fingerprint(source)

    return fingerprint([describe(source) for source in sources])


def _is_made_from(key: str, folder: Path) -> bool:
    """Whether a store lies in `folder` and was made from the sources and settings that `key` stands for."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        return bool(index["source"] == key)
    except (OSError, ValueError, KeyError, TypeError):
        return False

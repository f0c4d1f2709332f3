"""How an image store is made: picture by picture, and again where a picture changed, which costs that picture alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from imgrec_lib.data.decoding import FITS, RESAMPLING, FileSlice, Source, decode_and_repair
from imgrec_lib.data.images import (
    FORMAT,
    INDEX,
    PIXELS,
    VERSION,
    Earlier,
    FittedPixels,
    ImageStore,
    PendingImages,
    new_digest,
    open_images,
)
from imgrec_lib.errors import InputError, tell, unknown_name
from imgrec_lib.files import cache_folder, cached, fingerprint, write_json
from imgrec_lib.options import admits, options_of
from imgrec_lib.progress import progress_bar

DECODING = 2
"""To be raised whenever a picture is decoded otherwise than before, so that stores are made again."""
NOT_OF_THE_CATALOGUE = frozenset(
    {"cache", "progress", "split", "seed", "held_out", "validate", "validate_from", "test_from", "time_format"}
)
"""Arguments of readers that leave the catalogue and its pictures as they are."""
MOST_EARLIER = 4
"""Of how many earlier stores a store says which of its rows were theirs."""


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
    reading: str | None = None,
    alike: Iterable[Path] = (),
) -> ImageStore:
    """Decode, resize and store the pictures of a catalogue, or open the store if it is already there.

    Pictures stream through a bounded number of threads: memory does not grow with the catalogue. Two
    processes that prepare the same folder do the work once. EXIF orientation is applied, transparency becomes white,
    and of an animation the first frame is taken. A picture that is missing, unreadable, above 64 MB or above 100
    megapixels becomes white and is listed in the store's `problems`; one that is damaged and can be shown is listed in
    its `repairs`. A picture that is the same as in a store that lies in `folder` or `alike` is taken over from there.

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
        reading: what the reader was asked for, see `reading_of`: stores of the same reading are replaced.
        alike: folders of other stores.

    Returns:
        The store, memory-mapped.

    Raises:
        InputError: an unknown `fit` or `resample`, a `size` below 1, not as many sources as ids, or too
            little space on the disk.

    Warns of pictures that were made anew where others could be taken over.
    """
    if fit not in FITS:
        raise unknown_name("fit", fit, FITS)
    if resample not in RESAMPLING:
        raise unknown_name("resample", resample, RESAMPLING)
    if size < 1:
        raise InputError(f"image size must be at least 1 pixel, not {size}.")
    keys: list[str] | None = None
    if source_key is None:
        sources = list(sources)
        keys = _source_keys(sources)
        source_key = fingerprint(keys)
    form = _Form(size, fit, resample)
    key = fingerprint(source_key, [str(i) for i in ids], size, fit, resample, DECODING)
    folder = Path(folder)
    replaced: list[Path] = []

    def make(temporary: Path) -> None:
        needed, free = len(ids) * size * size * 3, shutil.disk_usage(folder.parent).free
        if needed > free:
            raise InputError(
                f"the image store {folder} may need {needed / 1e9:.1f} GB but only {free / 1e9:.1f} GB are free "
                "there: choose another cache folder (IMGREC_CACHE) or a smaller image size."
            )
        stores = list(_opened_alike([folder, *alike], form, {folder}, reading)) if keys else []
        replaced.extend(store.folder for store in stores if store.replaced and store.folder != folder)
        threads = workers or min(os.cpu_count() or 1, 16)
        index = {"decoding": DECODING, "source": key, "reading": reading, "sources": keys or []}
        _write_store(temporary, sources, [str(i) for i in ids], form, stores, threads, progress, index)

    store = open_images(cached(folder, make, partial(_is_made_from, key)))
    for earlier in replaced:
        shutil.rmtree(earlier, ignore_errors=True)
    return store


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
    reading: str | None = None,
) -> ImageStore:
    """`prepare_images` in a folder of the cache whose name tells datasets, catalogues and settings apart.

    Inside `pictures_when_needed` the store is prepared when a network is to look at it.

    Args:
        name: the dataset's name.
        cache: the cache folder; by default `default_cache()`.
        sources, ids, size, fit, resample, progress, reading: see `prepare_images`.
    """
    source_key = fingerprint(_source_keys(sources))
    digits = fingerprint(source_key, list(ids), fit, resample)
    folder = cache_folder(cache, "images")
    # The name may be anything; as part of a path it is reduced to letters, digits and dots.
    label = f"{re.sub(r'[^A-Za-z0-9.]', '-', name)[:80]}-{size}-"

    def prepare() -> ImageStore:
        store = prepare_images(
            sources,
            ids,
            folder / f"{label}{digits}",
            size=size,
            fit=fit,
            resample=resample,
            progress=progress,
            reading=reading,
            alike=sorted(folder.glob(f"{label}*")),
        )
        # What lies in memory as a whole is not kept there for the sake of proportions.
        return replace(store, originals=[each if isinstance(each, Path | FileSlice) else None for each in sources])

    return PendingImages(prepare, sources) if _when_needed.get() else prepare()


_when_needed = ContextVar("pictures are prepared when they are needed", default=False)


@contextmanager
def pictures_when_needed() -> Iterator[None]:
    """Readers inside it leave pictures alone until somebody looks at them: not every model does."""
    token = _when_needed.set(True)
    try:
        yield
    finally:
        _when_needed.reset(token)


def reading_of(reader: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of the catalogue that a reader was asked for, by which its earlier stores are known.

    Args:
        reader: the function.
        arguments: its arguments by name; those that change nothing of the catalogue do not count.
    """
    paths = {name for name, option in options_of(reader).items() if admits(option.type, Path)} | {"root"}
    asked = {
        name: os.path.abspath(os.path.expanduser(value)) if name in paths and value is not None else value
        for name, value in arguments.items()
        if name not in NOT_OF_THE_CATALOGUE
    }
    return fingerprint(reader.__name__, asked)


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
    folder = cache_folder(cache, "images")
    for earlier in images.earlier:
        if earlier.replaced:
            shutil.rmtree(folder / f"resized-{size}-{resample}-{earlier.fingerprint}", ignore_errors=True)
    pictures = (pixels if here else None for pixels, here in zip(images.pixels, images.present, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the original store has told which items have no picture
        return prepare_images(
            pictures,
            [str(row) for row in range(len(images))],
            folder / f"resized-{size}-{resample}-{images.fingerprint}",
            size=size,
            resample=resample,
            progress=False,
            source_key=images.fingerprint,
        )


class _Form(NamedTuple):
    """What all pictures of a store have in common, see `decode_and_repair`."""

    size: int
    fit: str
    resample: str


class _Row(NamedTuple):
    """A picture on its way into a store, as it will be kept; without pixels it is missing or broken."""

    kept: np.ndarray | None
    problem: str = ""
    repair: str = ""


@dataclass(frozen=True)
class _Alike:
    """Another store, from which pictures can be taken over.

    Attributes:
        folder: where it lies.
        images: the store itself.
        replaced: whether it will be deleted.
        rows: the row of each key of a picture.
        problems, repairs: what is noted of some rows.
        taken: the row here of each row of the new store that was taken over.
    """

    folder: Path
    images: ImageStore
    replaced: bool
    rows: dict[str, int]
    problems: dict[int, str]
    repairs: dict[int, str]
    taken: dict[int, int] = field(default_factory=dict)


def _opened_alike(folders: Iterable[Path], form: _Form, replaced: set[Path], reading: str | None) -> Iterator[_Alike]:
    """The stores among some folders whose pictures are of the same form; those that will be replaced come first."""
    found = []
    for folder in dict.fromkeys(folders):
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            if _Form(index["size"], index["fit"], index["resample"]) != form or index["decoding"] != DECODING:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                images = open_images(folder)
            known = {key: row for row, key in enumerate(index["sources"]) if key}
            problems, repairs = ({int(row): str(text) for row, text in index[name]} for name in ("problems", "repairs"))
            goes = folder in replaced or (reading is not None and index["reading"] == reading)
            found.append(_Alike(folder, images, goes, known, problems, repairs))
        # Whatever is wrong with another store, the pictures can be had from their files.
        except (OSError, KeyError, TypeError, ValueError):
            continue
    yield from sorted(found, key=lambda store: not store.replaced)


def _decoded(
    sources: Iterable[Source], keys: Sequence[str], form: _Form, alike: Sequence[_Alike], workers: int
) -> Iterator[_Row]:
    """Decode in threads, in order, a few pictures ahead, what no store alike has."""

    def one(row: int, source: Source) -> _Row:
        for store in alike if row < len(keys) else ():
            there = store.rows.get(keys[row])
            if there is not None:
                store.taken[row] = there
                if there in store.problems:
                    return _Row(None, store.problems[there])
                pixels = store.images.pixels
                kept = pixels.kept(there) if isinstance(pixels, FittedPixels) else pixels[there]
                return _Row(kept, repair=store.repairs.get(there, ""))
        try:
            kept, repair = decode_and_repair(source, *form)
            return _Row(kept, repair=repair)
        except ValueError as error:
            return _Row(None, str(error))

    pool = ThreadPoolExecutor(workers)
    ahead: deque[Future[_Row]] = deque()
    try:
        for row, source in enumerate(sources):
            ahead.append(pool.submit(one, row, source))
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
    form: _Form,
    alike: Sequence[_Alike],
    workers: int,
    progress: bool,
    origin: dict[str, Any],
) -> None:
    """Write the two files of a store into `folder`.

    Args:
        origin: what else its index says, of what it was made from.
    """
    problems: list[tuple[int, str]] = []
    repairs: list[tuple[int, str]] = []
    present = np.ones(len(ids), dtype=bool)
    size = form.size
    white = np.full((size, size, 3), 255, dtype=np.uint8)
    digest = new_digest(len(ids), size)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(ids), size, size, 3)}
    shapes: list[tuple[int, ...]] = []
    rows = 0
    # Written as a stream, not through a memory map, for which a full disk is a fatal signal.
    with open(folder / PIXELS, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        pictures = _decoded(sources, origin["sources"], form, alike, workers)
        bar = progress_bar(pictures, total=len(ids), desc="images", unit="image", disable=not progress)
        for rows, picture in enumerate(bar, start=1):
            if rows > len(ids):
                break
            if picture.kept is None:
                problems.append((rows - 1, picture.problem))
                present[rows - 1] = False
            if picture.repair:
                repairs.append((rows - 1, picture.repair))
            kept = white if picture.kept is None else picture.kept
            data = kept.tobytes()
            digest.update(data)
            file.write(data)
            shapes.append(kept.shape[:2])
        smaller = any(shape != (size, size) for shape in shapes)
        if smaller:
            digest.update(np.array(shapes, np.int64).tobytes())
            file.seek(0)  # NumPy pads a header, and any of these two has 128 bytes
            n_bytes = sum(3 * height * width for height, width in shapes)
            np.lib.format.write_array_header_1_0(file, header | {"shape": (n_bytes,)})
    if rows != len(ids):
        raise InputError(f"there are {len(ids)} item ids but {'more' if rows > len(ids) else rows} image sources.")
    digest.update(present.tobytes())
    write_json(
        folder / INDEX,
        {
            "format": FORMAT,
            "version": VERSION,
            "size": size,
            "fit": form.fit,
            "resample": form.resample,
            "fingerprint": digest.hexdigest()[:16],
            **origin,
            "problems": problems,
            "repairs": repairs,
            "ids": ids,
            **({"shapes": shapes} if smaller else {}),
            "earlier": [
                {"fingerprint": store.fingerprint, "replaced": store.replaced, "rows": store.rows.tolist()}
                for store in _earlier_stores(alike, len(ids))
            ],
        },
    )
    taken = {row for store in alike for row in store.taken}
    made = [ids[row] for row in np.flatnonzero(present) if row not in taken]
    if taken and made:
        tell(
            f"{len(made):,} of {len(ids):,} pictures are new or have changed and were prepared (the first is that of "
            f"item {made[0]}); {len(taken):,} have not changed and were taken over."
        )


def _earlier_stores(alike: Sequence[_Alike], n_items: int) -> list[Earlier]:
    """The stores that rows come from, and those that the stores to be replaced had their rows from in turn."""
    found = []
    for store in alike:
        if not store.taken and not store.replaced:
            continue
        rows = np.full(n_items, -1)
        rows[list(store.taken)] = list(store.taken.values())
        found.append(Earlier(store.images.fingerprint, store.replaced, rows))
        if store.replaced:
            # A row of -1 picks the last place here, where there is one more that stands for none.
            found += [
                Earlier(former.fingerprint, former.replaced, np.append(former.rows, -1)[rows])
                for former in store.images.earlier
            ]
    return found[:MOST_EARLIER]


def _source_keys(sources: Iterable[Source]) -> list[str]:
    """A fingerprint of what each source is: a changed file changes it; empty where there is none."""
    files: dict[Path, tuple[str, int, int] | None] = {}

    def state(path: Path) -> tuple[str, int, int] | None:
        if path not in files:
            try:
                stat = path.stat()
                files[path] = (str(path.absolute()), stat.st_size, stat.st_mtime_ns)
            except (OSError, ValueError):
                files[path] = None
        return files[path]

    def key(source: Source) -> str:
        if isinstance(source, Path):
            return fingerprint(state(source)) if state(source) else ""
        if isinstance(source, FileSlice):
            return fingerprint(state(source.path), source.offset, source.length) if state(source.path) else ""
        if isinstance(source, Image.Image):
            return fingerprint(np.asarray(source), source.mode)
        return "" if source is None else fingerprint(source)

    return [key(source) for source in sources]


def _is_made_from(key: str, folder: Path) -> bool:
    """Whether a store lies in `folder` and was made from the sources and settings that `key` stands for."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return bool(index["source"] == key)
    except (OSError, ValueError, KeyError, TypeError):
        return False

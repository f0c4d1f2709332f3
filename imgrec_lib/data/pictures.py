"""Which picture files are which item's: by their names, or by what a column of the item table says."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd

from imgrec_lib.data.dataset import Columns, Dataset, FurtherPictures
from imgrec_lib.data.ids import how_ids_differ, plain_id
from imgrec_lib.data.storing import cached_images
from imgrec_lib.errors import InputError, tell

ENDINGS = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff"})


def list_pictures(folder: Path) -> list[Path]:
    """All pictures below a folder, in alphabetical order.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"there is no image folder {folder}: check the path.")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)


def file_name_of(item: str) -> str:
    """An item's id as the name of a file, without its ending: what no file may be called is escaped as in addresses.

    `pictures_by_name` knows such names.
    """
    return re.sub(r'[/\\:*?"<>|%\x00-\x1f\x7f]|^\.', lambda sign: f"%{ord(sign[0]):02X}", item)


def find_pictures(
    folder: Path, items: Sequence[str], written: Mapping[str, str] | None, table: Path | None
) -> dict[str, list[Path]]:
    """The pictures of each item that has some: those that the item table names, or else those named after items.

    Args:
        folder: where the pictures are.
        items: ids.
        written: what a column of the item table says of each item; None where it has none.
        table: the table's file.

    Raises:
        InputError: see `pictures_by_column` and `pictures_by_name`.
    """
    if written is None or table is None:
        return pictures_by_name(folder, items)
    return pictures_by_column(folder, items, written, table)


def pictures_by_name(folder: Path, items: Sequence[str]) -> dict[str, list[Path]]:
    """The pictures of each item that has some: the file that is named after it, and numbered ones.

    Pictures of item `X` are `X.jpg`, then `X_1.jpg`, `X-2.png` and the like in the order of their numbers, then those
    in a folder `X`. Where an item is called `X_1` itself, `X_1.jpg` is its picture, and not one of `X`.

    Args:
        folder: where the pictures are, at any depth.
        items: ids; Unicode's ways to write a letter are one (see `plain_id`).

    Raises:
        InputError: no picture is named after an item, or two after the same.

    Warns when items without a picture are named almost as pictures are.
    """
    pictures = list_pictures(folder)
    found = _named_after(pictures, items, folder)
    without = [item for item in items if item not in found]
    difference = how_ids_differ(without, [plain_id(path.stem) for path in pictures]) if without else ""
    if not found:
        example = f"{pictures[0].name!r}, for example" if pictures else "there are no pictures at all"
        raise InputError(
            f"no picture in {folder} is named after an item ({example}, while the first item is {items[0]!r}): "
            + (difference or "name them <item>.jpg, or give their paths in an 'image' column of the item table")
            + "."
        )
    if difference:
        tell(f"{len(without):,} items have no picture in {folder}: {difference}.")
    return found


def pictures_by_column(
    folder: Path, items: Sequence[str], written: Mapping[str, str], table: Path
) -> dict[str, list[Path]]:
    """The pictures of each item that has some: the files that the item table names.

    A path is relative to the folder, or absolute and inside it; a cell may hold a list of them. Where the table holds
    addresses instead, the pictures are those that are named after the item, or else the files of the addresses' names.

    Args:
        folder: where the pictures are.
        items: ids.
        written: what the table says of each item; empty cells are left out.
        table: the table's file.

    Returns:
        Of an item whose files are missing the path where the first should be.

    Raises:
        InputError: a path leads outside the folder, or no picture is found at all.

    Warns when pictures were found by the item's name.
    """
    pictures = list_pictures(folder)
    by_path = {plain_id(path.relative_to(folder).as_posix()): path for path in pictures}
    by_name = {plain_id(path.name): path for path in reversed(pictures)}
    found: dict[str, list[Path]] = {}
    addressed = [item for item in items if item in written and _are_addresses(written[item])]
    named = _named_after(pictures, addressed, folder) if addressed else {}
    for item in items:
        if item not in written:
            continue
        cell, known = written[item], []
        if _are_addresses(cell) and item in named:
            continue
        for sizes in _written_pictures(cell, by_path):
            # Read as a Windows path, both kinds of slash separate.
            inside = (_inside(folder, PureWindowsPath(size)) for size in sizes)
            there = [by_path[path] for path in inside if path in by_path]
            if not there and (_are_addresses(cell) or len(sizes) > 1 or PureWindowsPath(sizes[0]).anchor):
                names = [plain_id(PureWindowsPath(size).name) for size in sizes]
                there = [by_name[name] for name in names if name in by_name]
            known += there[:1]
        if known:
            found[item] = list(dict.fromkeys(known))
        elif not _are_addresses(cell):
            expected = _inside(folder, PureWindowsPath(_written_pictures(cell, by_path)[0][0]))
            if expected is None:
                raise InputError(
                    f"the picture {cell!r} of item {item!r} lies outside the image folder: paths are relative to "
                    f"{folder}."
                )
            found[item] = [folder / expected]
    if named:
        found |= named
        tell(
            f"{table} gives addresses of pictures for {len(addressed):,} items: {len(named):,} of these have a picture "
            f"in {folder} that is named after the item."
        )
    if not any(os.path.isfile(path) for paths in found.values() for path in paths):
        raise InputError(
            f"no picture named in the item table is in {folder} (the first is {next(iter(written.values()), '')!r}): "
            "check the image folder; paths are relative to it, and pictures may also be named <item>.jpg."
        )
    return found


def only_pictured(
    tables: Sequence[tuple[Path, pd.DataFrame]], catalogue: pd.DataFrame, pictures: Mapping[str, Sequence[Path]]
) -> tuple[list[tuple[Path, pd.DataFrame]], pd.DataFrame]:
    """Interactions and catalogue without the items that have no picture.

    Args:
        tables: files of interactions and what was read from them.
        catalogue: the item table.
        pictures: files by item.

    Raises:
        InputError: no item has a picture.

    Warns of how many were left out.
    """
    there = {item for item, paths in pictures.items() if any(path.is_file() for path in paths)}
    if not there:
        raise InputError(
            "require_image keeps only items with a picture, and there is none: give `images` the folder that has them."
        )
    kept = catalogue[catalogue[Columns.ITEM].isin(there)]
    chosen = [(path, table[table[Columns.ITEM].isin(there)].reset_index(drop=True)) for path, table in tables]
    lost = sum(len(table) for _, table in tables) - sum(len(table) for _, table in chosen)
    if len(kept) < len(catalogue):
        tell(
            f"{len(catalogue) - len(kept):,} of {len(catalogue):,} items have no picture and are left out, and their "
            f"{lost:,} interactions."
        )
    return chosen, kept


def with_pictures(
    dataset: Dataset, name: str, pictures: Mapping[str, Sequence[Path]], cache: str | Path | None, **options: Any
) -> Dataset:
    """A dataset with its items' pictures, decoded and kept in the cache.

    Args:
        dataset: without pictures.
        name: what the cache calls the data.
        pictures: files by item; the first is the item's picture, all others are its further ones.
        cache: the cache folder; by default `default_cache()`.
        options: see `cached_images`.
    """
    ids = dataset.items[Columns.ITEM].tolist()
    first = [next(iter(pictures.get(item, ())), None) for item in ids]
    images = cached_images(name, first, ids, cache, **options)
    dataset = replace(dataset, images=images, pictures_count=False)
    owners = [(row, path) for row, item in enumerate(ids) for path in list(pictures.get(item, ()))[1:]]
    if not owners:
        return dataset
    places = np.array([row for row, _ in owners])
    tell(f"{len(owners):,} further pictures of {len(np.unique(places)):,} items were found beside their first ones.")
    number = np.arange(len(places)) - np.searchsorted(places, places) + 2
    labels = [f"{ids[row]} (picture {n})" for row, n in zip(places, number, strict=True)]
    further = cached_images(f"{name}-further", [path for _, path in owners], labels, cache, **options)
    return dataset.with_images(dataset.images, FurtherPictures(places, further))


def _named_after(pictures: Sequence[Path], items: Iterable[str], folder: Path) -> dict[str, list[Path]]:
    wanted = set(items)
    stems = [plain_id(unquote(path.stem)) for path in pictures]
    parents = [plain_id(unquote(path.parent.name)) if path.parent != folder else "" for path in pictures]
    # Ids may be numbers, and so may the pictures in an item's folder: "2/1.jpg". The folders speak where names repeat.
    repeated = {stem for stem, n in Counter(stems).items() if n > 1} & wanted
    by_folder = all(parent in wanted for stem, parent in zip(stems, parents, strict=True) if stem in repeated)
    found: dict[str, list[tuple[int, int, Path]]] = {}
    for path, stem, parent in zip(pictures, stems, parents, strict=True):
        if repeated and by_folder and parent in wanted:
            item, rank = parent, (2, 0)
        elif stem in wanted:
            item, rank = stem, (0, 0)
        elif (numbered := re.fullmatch(r"(.+?)[ _-]*[_-](\d{1,4})", stem)) and numbered[1] in wanted:
            item, rank = numbered[1], (1, int(numbered[2]))
        elif parent in wanted:
            item, rank = parent, (2, 0)
        else:
            continue
        own = found.setdefault(item, [])
        if rank == (0, 0) and any(other[:2] == rank for other in own):
            raise InputError(
                f"both {own[0][2]} and {path} are named after item {item!r}: keep one, or name the pictures in an "
                "'image' column of the item table."
            )
        own.append((*rank, path))
    return {item: [path for *_, path in sorted(own, key=_by_rank)] for item, own in found.items()}


def _by_rank(ranked: tuple[int, int, Path]) -> tuple[Any, ...]:
    """Numbered pictures by their numbers, those in a folder as people count: 2 comes before 10."""
    kind, number, path = ranked
    return kind, number, [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _are_addresses(written: str) -> bool:
    return "://" in written


def addresses_of(written: Mapping[str, str]) -> dict[str, list[str]]:
    """The addresses of each item's pictures, of a picture in several sizes the largest, in the order of the table.

    Args:
        written: what the item table says of each item.
    """
    found = {}
    for item, cell in written.items():
        if _are_addresses(cell):
            sizes = [[text for text in each if _are_addresses(text)] for each in _sizes(cell)]
            found[item] = [each[0] for each in sizes if each]
    return found


def _sizes(written: str, known: Mapping[str, Path] = MappingProxyType({})) -> list[list[str]]:
    """The pictures in a cell, each as the paths of its sizes: one path, or a list as Python and JSON write it, or
    several with "|" or ";" between them."""
    if written.startswith("["):
        for text in (written, written.replace("'", '"')):
            try:
                sizes = [list(_texts(value)) for value in json.loads(text)]
            except (ValueError, RecursionError):
                continue
            return [each for each in sizes if each] or [[written]]
    separator = r"[|;]" if not _are_addresses(written) else r"[|;]\s*(?=https?://)"
    if plain_id(written) not in known and re.search(separator, written):
        return [[part.strip()] for part in re.split(separator, written) if part.strip()] or [[written]]
    return [[written]]


def _written_pictures(written: str, known: Mapping[str, Path]) -> list[list[str]]:
    """`_sizes`, of addresses their paths alone."""
    pictures = _sizes(written, known)
    return (
        [[unquote(urlsplit(size).path) for size in sizes] for sizes in pictures]
        if _are_addresses(written)
        else pictures
    )


LARGEST = ("hi_res", "large")
"""What Amazon's metadata call the largest sizes of a picture."""


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name in sorted(value, key=lambda name: LARGEST.index(name) if name in LARGEST else len(LARGEST)):
            yield from _texts(value[name])


def _inside(folder: Path, path: PureWindowsPath) -> str | None:
    """The path below the folder, as `pictures_by_column` compares it; None where it leads outside."""
    if ".." in path.parts:
        return None
    if path.anchor:
        whole = Path(path.as_posix())
        if not whole.is_relative_to(folder.absolute()):
            return None
        return plain_id(whole.relative_to(folder.absolute()).as_posix())
    return plain_id(path.as_posix())

"""Reader of data sets of covers: PixelRec, NineRec and MicroLens, as published, and whatever has their layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from imgrec_lib.data.columns import ITEM_NAMES, USER_NAMES, plain_name
from imgrec_lib.data.dataset import Columns, Dataset, HeldOut, Interactions
from imgrec_lib.data.decoding import Fit, Resample
from imgrec_lib.data.formats import check_encoding, columns_of, table_stem
from imgrec_lib.data.ids import how_ids_differ, read_ids
from imgrec_lib.data.interactions import Repeated, check_counting, read_interactions
from imgrec_lib.data.items import UNKNOWN, read_items
from imgrec_lib.data.pictures import find_pictures, only_pictured, with_pictures
from imgrec_lib.data.split import check_split, split_dataset
from imgrec_lib.data.storing import reading_of
from imgrec_lib.data.streams import stream_table
from imgrec_lib.data.times import check_forms
from imgrec_lib.errors import InputError, tell
from imgrec_lib.files import plain_path
from imgrec_lib.options import Count, CountOrNone, Positive

COVERS = ("cover", "image", "picture")
ABOUT_ITEMS = ("item", "title", "tag", "info", "text", "meta")


def load_covers(
    root: str | Path,
    *,
    interactions: str | Path | None = None,
    items: str | Path | None = None,
    covers: str | Path | None = None,
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    time_format: str | list[str] | None = None,
    encoding: str | None = None,
    where: dict[str, Any] | None = None,
    weight_column: str | None = None,
    min_weight: float | None = None,
    repeated: Repeated = "first",
    min_interactions: int | None = 5,
    split: Literal["random", "time", "date"] = "random",
    seed: CountOrNone = 0,
    held_out: Positive = 1,
    validate: bool = True,
    validate_from: str | None = None,
    test_from: str | None = None,
    require_image: bool = True,
    image_size: Count = 224,
    image_fit: Fit = "squash",
    image_resample: Resample = "bicubic",
    cache: str | Path | None = None,
    progress: bool = True,
) -> Dataset:
    """Read interactions and covers.

    The interactions are a table, compressed or not, in one of two forms. With a header, and then in any of the forms of
    `load_table`: columns of the user, the item and perhaps the time (PixelRec's `item_id,user_id,timestamp`,
    MicroLens's `user,item,timestamp`). Or text without: a user and, behind a tab, all of its items with blanks between
    them, the latest last (NineRec's behaviours, MicroLens's and PixelRec's sequences); these have an order and no
    times, and `split="time"` goes by the order. Both are read in a stream.

    The catalogue are the items of the interactions. The cover of item `X` is the file `X` of the folder of covers, at
    any depth, or the one that a column such as `image` of the table of items names. That table may add names,
    descriptions, tags (a header is needed, or two columns: item and title).

    Args:
        root: folder in which the rest is found: the only table whose name does not speak of items, titles or tags; the
            only folder whose name speaks of covers or images; no table of items.
        interactions, items, covers: paths that replace those found, relative to the root or absolute.
        user_column, item_column, time_column: column names, where they are not recognised.
        time_format: the form of the times, or several, where it is not recognised; see `check_forms`.
        encoding, where, weight_column, min_weight, repeated: see `load_table`.
        min_interactions: users with fewer different items are dropped; None drops none.
        split: "random" or "time" (the latest of every user), or "date" (of all users what came after a day).
        seed, held_out, validate, validate_from, test_from: how much is held out, and when: see `split_dataset`.
        require_image: whether items without a cover, and their interactions, are left out.
        image_size: height and width of the stored covers, in pixels.
        image_fit: "squash" changes the aspect ratio (the papers' choice), "pad" adds white, "crop" keeps the centre.
        image_resample: "bicubic", "bilinear" or "nearest".
        cache: where the image store is kept; by default `default_cache()`.
        progress: whether to show progress bars.

    Raises:
        InputError: a file or column is missing or damaged, several could be meant, no cover is named after an item, or
            nothing is left.
    """
    reading = reading_of(load_covers, locals())
    check_forms(time_format)
    check_counting(weight_column, min_weight, repeated)
    check_encoding(encoding)
    check_split(min_interactions, split, held_out, validate, validate_from, test_from)
    root = plain_path(root)
    if not root.is_dir():
        raise InputError(f"there is no folder {root}: give `root` the folder of the interactions and covers.")
    path = root / plain_path(interactions) if interactions is not None else _only_table(root)
    folder = root / plain_path(covers) if covers is not None else _only_folder(root)
    timed = user_column is not None or item_column is not None or not _is_of_sequences(path, encoding)
    if timed:
        table = read_interactions(
            path, user_column=user_column, item_column=item_column, time_column=time_column, time_format=time_format,
            where=where, weight_column=weight_column, min_weight=min_weight,
            repeated=repeated, encoding=encoding, streamed=True, progress=progress,
        )  # fmt: skip
    elif where or min_weight is not None or repeated != "first" or time_column is not None or time_format is not None:
        raise InputError(
            f"{path} has a sequence of items for each user and nothing else: leave where, min_weight, repeated, "
            "time_column and time_format out."
        )
    else:
        table = _sequences(path, encoding, progress)
    catalogue = pd.DataFrame({Columns.ITEM: np.sort(table[Columns.ITEM].unique().astype(object))})
    about, written, items_path = None, None, None
    if items is not None:
        items_path = root / plain_path(items)
        about, written = read_items(items_path, encoding=encoding)
    pictures = find_pictures(folder, catalogue[Columns.ITEM].tolist(), written, items_path)
    if require_image:
        [(_, table)], catalogue = only_pictured([(path, table)], catalogue, pictures)
    dataset = split_dataset(
        "covers", table, catalogue, min_interactions=min_interactions, split=split, seed=seed, held_out=held_out,
        validate=validate, validate_from=validate_from, test_from=test_from,
    )  # fmt: skip
    if not timed:
        dataset = _without_times(dataset)
    if about is not None and items_path is not None:
        dataset = replace(dataset, items=_described(dataset.items, about, items_path))
    return with_pictures(
        dataset, "covers", pictures, cache, size=image_size, fit=image_fit, resample=image_resample, progress=progress,
        reading=reading,
    )  # fmt: skip


def _only_table(root: Path) -> Path:
    found = sorted(
        path
        for path in root.iterdir()
        if table_stem(path.name) is not None and not any(word in path.name.lower() for word in ABOUT_ITEMS)
    )
    # Where the same interactions are there in both forms, those with times say more.
    timed = [path for path in found if "pair" in path.name.lower()]
    found = found if len(timed) != 1 else timed
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:5])
        raise InputError(
            f"{root} has {len(found)} tables that could be the interactions{f' ({names})' if names else ''}: name one "
            "with the option interactions."
        )
    return found[0]


def _only_folder(root: Path) -> Path:
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    found = [path for path in folders if any(word in path.name.lower() for word in COVERS)]
    if len(found) != 1:
        raise InputError(
            f"{root} has {len(found)} folders that could hold the covers: name one with the option covers."
        )
    return found[0]


def _is_of_sequences(path: Path, encoding: str | None) -> bool:
    """Whether a table has no header, and its first row is a user and a sequence of items."""
    cells = columns_of(path, encoding)
    return len(cells) == 2 and {plain_name(cell.strip()) for cell in cells}.isdisjoint({*USER_NAMES, *ITEM_NAMES})


def _sequences(path: Path, encoding: str | None, progress: bool) -> pd.DataFrame:
    """Each user's items one a row, with their places in the user's order in place of times."""
    names = ("user", "items")
    table = stream_table(path, names, names=names, encoding=encoding, progress=progress)
    users = read_ids(table["user"], "user", path)
    listed = [items.split() if isinstance(items, str) else [] for items in table["items"]]
    lengths = np.array([len(items) for items in listed])
    places = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    items = pd.Series(pd.Categorical([item for items in listed for item in items]))
    return pd.DataFrame(
        {
            Columns.USER: users.iloc[np.repeat(np.arange(len(users)), lengths)].reset_index(drop=True),
            Columns.ITEM: read_ids(items, "items", path),
            Columns.TIME: places,
        }
    )


def _without_times(dataset: Dataset) -> Dataset:
    """A dataset whose interactions had an order for the split, and have no times for models."""

    def untimed(part: HeldOut) -> HeldOut:
        return HeldOut(Interactions.from_pairs(part.users, part.flat, dataset.n_users, dataset.n_items))

    train = replace(dataset.train, times=None)
    return replace(dataset, train=train, validation=untimed(dataset.validation), test=untimed(dataset.test))


def _described(catalogue: pd.DataFrame, described: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The catalogue with what the table of a file says of its items."""
    known = catalogue[Columns.ITEM].isin(described[Columns.ITEM])
    if not known.any():
        difference = how_ids_differ(catalogue[Columns.ITEM], described[Columns.ITEM])
        raise InputError(f"{path} describes no item of the interactions{f': {difference}' if difference else ''}.")
    if not known.all():
        tell(f"{int((~known).sum()):,} of {len(known):,} items have no row in {path}: nothing but their ids is known.")
    whole = catalogue.merge(described, on=Columns.ITEM, how="left")
    if Columns.CATEGORY in whole:
        whole[Columns.CATEGORY] = whole[Columns.CATEGORY].fillna(UNKNOWN)
    if Columns.GROUP in whole:
        whole[Columns.GROUP] = whole[Columns.GROUP].fillna(whole[Columns.ITEM])
    return whole.fillna("")

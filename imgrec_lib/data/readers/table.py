"""Reader of a user's own catalogue: tables of interactions and items, and a folder of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from imgrec_lib.data.dataset import Columns, Dataset
from imgrec_lib.data.decoding import Fit, Resample
from imgrec_lib.data.formats import EmptyTable, check_encoding, find_table
from imgrec_lib.data.interactions import Repeated, check_counting, read_interactions
from imgrec_lib.data.items import read_items, settle_unlisted
from imgrec_lib.data.pictures import (
    addresses_of,
    find_pictures,
    list_pictures,
    only_pictured,
    with_pictures,
)
from imgrec_lib.data.split import check_split, split_dataset, with_given_split
from imgrec_lib.data.storing import reading_of
from imgrec_lib.data.times import check_forms
from imgrec_lib.errors import InputError, tell
from imgrec_lib.files import plain_path
from imgrec_lib.options import Count, CountOrNone, Positive

NO_VALIDATION = "nothing is chosen by validation, and models train for all their epochs."


def load_table(
    root: str | Path | None = None,
    *,
    interactions: str | Path | None = None,
    items: str | Path | None = None,
    images: str | Path | None = None,
    train: str | Path | None = None,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    time_format: str | list[str] | None = None,
    weight_column: str | None = None,
    category_column: str | None = None,
    name_column: str | None = None,
    description_column: str | None = None,
    group_column: str | None = None,
    image_column: str | None = None,
    encoding: str | None = None,
    where: dict[str, Any] | None = None,
    min_weight: float | None = None,
    repeated: Repeated = "first",
    min_interactions: int | None = 5,
    require_image: bool = False,
    keep_unused_items: bool = True,
    unlisted_items: Literal["refuse", "keep", "drop"] = "refuse",
    split: str = "random",
    seed: CountOrNone = 0,
    held_out: Positive = 1,
    validate: bool = True,
    validate_from: str | None = None,
    test_from: str | None = None,
    image_size: Count = 224,
    image_fit: Fit = "squash",
    image_resample: Resample = "bicubic",
    cache: str | Path | None = None,
    progress: bool = True,
    name: str = "table",
) -> Dataset:
    """Read a user's own catalogue.

    In the folder `root` these are found by name: `interactions.csv`, or else the three files `train.csv`,
    `validation.csv` (or `valid.csv`) and `test.csv`, whose split is then kept (ImgRec's layout); `items.csv`;
    and a folder `images`. Each table may be .csv, .tsv, .parquet (also a folder of such files), JSON lines, or
    RecBole's .inter and .item, and compressed (`data.formats`); each can be named instead of found. Only interactions
    are needed. Ids are compared as text (`data.ids`). Every row of interactions is a purchase, unless the options say
    which are not.

    Interactions have a user, an item and perhaps a time (`data.times` says what is recognised). Items
    have an item and perhaps a category, a name, a description, a group (what variants of one product share, such as a
    product code) and an image (a path below the image folder, or a list of several); every further column is an
    attribute. Columns are recognised by usual names (user_id, reviewerID, customer_id; productId, asin, article_id;
    ...). Without an image column, or where it holds addresses, the picture of item `X` is `X.jpg` (or another of
    `data.pictures`) anywhere below the image folder; further ones are `X_1.jpg`, `X-2.png` and the like, or all that
    lies in a folder `X`.

    Args:
        root: folder with the files named above.
        interactions, items, images: paths that replace those found in `root`.
        train, validation, test: paths of a split that came with the data. Users may have several held-out items, and
            users and items may occur in the test alone; without validation nothing is chosen by it.
        user_column, item_column, time_column, category_column, name_column, description_column, group_column,
            image_column: column names, where they are not recognised.
        time_format: the form of the times, or several, where it is not recognised; see `check_forms`.
        encoding: of tables of text that are neither UTF-8 nor UTF-16 nor Windows-1252, such as "gbk".
        where: only rows of interactions whose columns have these values (one, or a list) are purchases, such as
            {"event": "transaction"}.
        weight_column, min_weight: only rows of at least that weight are purchases; a weight is a rating or a quantity.
        repeated: of the rows of a user with an item, in the order of time, the "first" or the "last" counts, or their
            weights are added up ("sum", so that a return takes back a purchase).
        min_interactions: users with fewer different items are dropped; None drops none. Not used on a given
            split.
        require_image: whether items without a picture, and their interactions, are left out.
        keep_unused_items: whether items without interactions stay in the catalogue.
        unlisted_items: what happens to items with interactions but without a row in the item table: "refuse", "keep"
            (nothing is known of them) or "drop" (their interactions are left out).
        split: "random" or "time" (the latest of every user), or "date" (of all users what came after a day).
        seed, held_out, validate, validate_from, test_from: how much is held out, and when: see `split_dataset`.
        image_size: height and width of the stored pictures, in pixels.
        image_fit: "squash" changes the aspect ratio (the papers' choice), "pad" adds white, "crop" keeps the centre.
        image_resample: "bicubic", "bilinear" or "nearest" (DVBPR's, by Pillow's default of its time).
        cache: where the image store is kept; by default `default_cache()`.
        progress: whether to show progress bars.
        name: what to call the dataset.

    Raises:
        InputError: a file or column is missing or unreadable, a value is missing or malformed, an item of an
            interaction has no row in the item table, no picture matches any item, or the split is empty.

    Warns of all that was left out, guessed or changed.
    """
    reading = reading_of(load_table, locals())
    folder = None if root is None else plain_path(root)
    if folder is not None and not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give `root` the folder that holds interactions.csv.")
    check_forms(time_format)
    check_counting(weight_column, min_weight, repeated)
    check_encoding(encoding)
    read = partial(
        read_interactions, user_column=user_column, item_column=item_column, time_column=time_column,
        time_format=time_format, where=where, weight_column=weight_column, min_weight=min_weight, repeated=repeated,
        encoding=encoding,
    )  # fmt: skip
    whole, parts = _interaction_files(folder, interactions, train, validation, test)
    if whole is not None:
        check_split(min_interactions, split, held_out, validate, validate_from, test_from)
    tables = [(whole, read(whole))] if whole is not None else _read_parts(parts, read)
    items_path = _given_or_found(items, folder, "items", recbole=".item")
    if items_path is None:
        distinct = pd.concat([table[Columns.ITEM] for _, table in tables]).unique()
        catalogue, written = pd.DataFrame({Columns.ITEM: np.sort(distinct)}), None
    else:
        catalogue, written = read_items(
            items_path, item_column=item_column, category_column=category_column, name_column=name_column,
            description_column=description_column, image_column=image_column, group_column=group_column,
            encoding=encoding,
        )  # fmt: skip
        tables, catalogue = settle_unlisted(tables, catalogue, items_path, unlisted_items)
    pictures = _pictures(images, folder, catalogue[Columns.ITEM], written, items_path, image_column)
    if require_image:
        tables, catalogue = only_pictured(tables, catalogue, pictures or {})

    if whole is not None:
        dataset = split_dataset(
            name,
            tables[0][1],
            catalogue,
            min_interactions=min_interactions,
            keep_unused_items=keep_unused_items,
            split=split,
            seed=seed,
            held_out=held_out,
            validate=validate,
            validate_from=validate_from,
            test_from=test_from,
        )
    else:
        dataset = with_given_split(name, [table for _, table in tables], catalogue, keep_unused_items)
    dataset = replace(dataset, picture_addresses=addresses_of(written or {}))
    if pictures is None:
        return dataset
    return with_pictures(
        dataset, name, pictures, cache, size=image_size, fit=image_fit, resample=image_resample, progress=progress,
        reading=reading,
    )  # fmt: skip


def _given_or_found(given: str | Path | None, folder: Path | None, *names: str, recbole: str) -> Path | None:
    """The path given by the user, else the table of that name in the folder."""
    if given is not None:
        return plain_path(given)
    return None if folder is None else find_table(folder, *names, recbole=recbole)


def _interaction_files(
    folder: Path | None,
    interactions: str | Path | None,
    train: str | Path | None,
    validation: str | Path | None,
    test: str | Path | None,
) -> tuple[Path | None, list[Path]]:
    """The file of all interactions, or else those of a split that came with the data."""
    parts = {
        "train": _given_or_found(train, folder, "train", recbole=".train.inter"),
        "validation": _given_or_found(validation, folder, "validation", "valid", recbole=".valid.inter"),
        "test": _given_or_found(test, folder, "test", recbole=".test.inter"),
    }
    found = [path for path in parts.values() if path is not None]
    whole = _given_or_found(interactions, folder, "interactions", recbole=".inter")
    if whole is not None and (interactions is not None or train is None):
        if found:
            tell(
                f"{whole} is read and split, and the split that lies beside it ({', '.join(p.name for p in found)}) is "
                "not used: to use that, give the paths train, validation and test."
            )
        return whole, []
    if not found:
        raise InputError(
            f"there are no interactions{'' if folder is None else f' in {folder}'}: "
            "give interactions.csv (columns user, item and perhaps timestamp), or train.csv, validation.csv "
            "and test.csv."
        )
    missing = [part for part, path in parts.items() if path is None]
    if missing not in ([], ["validation"]):
        raise InputError(f"the split is incomplete: there is no {' and no '.join(missing)} file beside the others.")
    if missing:
        tell(f"there is no validation file: {NO_VALIDATION}")
    if whole is not None:
        tell(f"the split of {', '.join(path.name for path in found)} is used, and {whole} beside it is not read.")
    return None, found


def _read_parts(parts: Sequence[Path], read: Callable[[Path], pd.DataFrame]) -> list[tuple[Path, pd.DataFrame]]:
    """The files of a given split: training, perhaps validation, and test; an empty one of validation is none."""
    tables = []
    for number, path in enumerate(parts):
        try:
            tables.append((path, read(path)))
        except EmptyTable:
            if (number, len(parts)) != (1, 3):
                raise
            tell(f"{path} is empty: {NO_VALIDATION}")
    return tables


def _pictures(
    images: str | Path | None,
    folder: Path | None,
    items: pd.Series,
    written: dict[str, str] | None,
    items_path: Path | None,
    image_column: str | None,
) -> dict[str, list[Path]] | None:
    """The pictures of each item that has some; None where there are no pictures."""
    image_folder = plain_path(images) if images is not None else None if folder is None else folder / "images"
    if image_folder is None or (images is None and not image_folder.is_dir()):
        if image_column is not None:
            raise InputError(f"{items_path} names pictures but there is no image folder: give `images` its path.")
        if written is not None:
            tell(
                f"{items_path} names pictures but there is no image folder: the data is read without pictures. To use "
                "them, give `images` the path of their folder; addresses are downloaded by 'imgrec pictures'."
            )
        return None
    ids = sorted(items)
    if written is not None and addresses_of(written) and not list_pictures(image_folder):
        tell(
            f"{image_folder} has no pictures yet: 'imgrec pictures' downloads those whose addresses are in "
            f"{items_path}."
        )
        return None
    return find_pictures(image_folder, ids, written, items_path)

"""Reader of a user's own catalogue: tables of interactions and items, and a folder of pictures."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Literal

import numpy as np
import pandas as pd

from imgrec_lib.data.columns import find_column, require_column
from imgrec_lib.data.dataset import Columns, Dataset
from imgrec_lib.data.ids import how_ids_differ, read_ids
from imgrec_lib.data.images import Fit, Resample, Source, cached_images
from imgrec_lib.data.split import given_split, index_ids, split_dataset
from imgrec_lib.data.times import are_clock_times, check_forms, read_times
from imgrec_lib.errors import InputError, one_line, tell
from imgrec_lib.options import Count, CountOrNone, Positive

# Names by which columns are recognised, in other data sets' words; case, "_", "-" and spaces are ignored.
USER_NAMES = ("user", "userid", "reviewerid", "customerid", "customer", "uid", "visitorid")
ITEM_NAMES = ("item", "itemid", "productid", "product", "asin", "articleid", "article", "iid", "sku")
TIME_NAMES = ("timestamp", "time", "unixreviewtime", "tdat", "date", "datetime")
DAY_NAMES = ("date", "day", "tdat")
CATEGORY_NAMES = ("category", "categoryname", "producttypename", "producttype", "type")
TEXT_NAMES = ("name", "title", "prodname", "productname")
GROUP_NAMES = ("group", "itemgroup", "itemgroupid", "productcode", "parentasin")
IMAGE_NAMES = ("image", "imagepath", "picture", "photo", "file", "filename")

UNKNOWN = "unknown"
"""The category of items that have none."""

TABLE_SUFFIXES = (".csv", ".parquet", ".tsv")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})


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
    category_column: str | None = None,
    name_column: str | None = None,
    group_column: str | None = None,
    image_column: str | None = None,
    min_interactions: int | None = 5,
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
    and a folder `images`. Each may be `.parquet` or `.tsv` as well, and each can be named instead of found.
    Only interactions are needed. Ids are compared as text.

    Interactions have a user, an item and perhaps a time (`data.times` says what is recognised). Items
    have an item and perhaps a category, a name, a group (what variants of one product share, such as a product code)
    and an image (a path below the image folder); every further column is an attribute. Columns are recognised by
    usual names (user_id, reviewerID, customer_id; productId, asin, article_id; ...). Without an image column, the
    picture of item `X` is `X.jpg` (or .png, .webp, .gif, .bmp) anywhere below the image folder.

    Args:
        root: folder with the files named above.
        interactions, items, images: paths that replace those found in `root`.
        train, validation, test: paths of a split that came with the data. Users may have several held-out items, and
            users and items may occur in the test alone; without validation nothing is chosen by it.
        user_column, item_column, time_column, category_column, name_column, group_column, image_column: column
            names, where they are not recognised.
        time_format: the form of the times, or several, where it is not recognised; see `check_forms`.
        min_interactions: users with fewer different items are dropped; None drops none. Not used on a given
            split.
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
    """
    folder = None if root is None else Path(root)
    if folder is not None and not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give `root` the folder that holds interactions.csv.")
    columns = (user_column, item_column, time_column, check_forms(time_format))
    given = [
        _path(train, folder, "train"),
        _path(validation, folder, "validation", "valid"),
        _path(test, folder, "test"),
    ]
    interactions_path = _path(interactions, folder, "interactions")
    if interactions_path is not None and (interactions is not None or train is None):
        tables = [(interactions_path, read_interactions(interactions_path, *columns))]
    elif any(given):
        missing = [part for part, path in zip(("train", "validation", "test"), given, strict=True) if path is None]
        if missing not in ([], ["validation"]):
            raise InputError(f"the split is incomplete: there is no {' and no '.join(missing)} file beside the others.")
        if missing:
            warnings.warn(
                "there is no validation file: nothing is chosen by validation, and models train for all their epochs.",
                stacklevel=3,
            )
        tables = [(path, read_interactions(path, *columns)) for path in given if path is not None]
    else:
        raise InputError(
            f"there are no interactions{'' if folder is None else f' in {folder}'}: "
            "give interactions.csv (columns user, item and perhaps timestamp), or train.csv, validation.csv "
            "and test.csv."
        )

    items_path = _path(items, folder, "items")
    if items_path is None:
        distinct = pd.concat([table[Columns.ITEM] for _, table in tables]).unique()
        catalogue, paths = pd.DataFrame({Columns.ITEM: np.sort(distinct)}), None
    else:
        catalogue, paths = read_items(items_path, item_column, category_column, name_column, image_column, group_column)
        tables, catalogue = settle_unlisted(tables, catalogue, items_path, unlisted_items)

    if len(tables) == 1:
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
        dataset = _with_given_split(name, [table for _, table in tables], catalogue, keep_unused_items)

    image_folder = Path(images) if images is not None else None if folder is None else folder / "images"
    if image_folder is None or (images is None and not image_folder.is_dir()):
        if paths is not None:
            raise InputError(f"{items_path} names pictures but there is no image folder: give `images` its path.")
        return dataset
    ids = dataset.items[Columns.ITEM].tolist()
    sources = _matched(image_folder, ids) if paths is None else _named(image_folder, ids, paths)
    return dataset.with_images(
        cached_images(
            name, sources, ids, cache, size=image_size, fit=image_fit, resample=image_resample, progress=progress
        )
    )


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV (comma, semicolon or tab) or Parquet file. CSV cells are text, as written; empty ones are
    NaN.

    Raises:
        InputError: the file is missing, empty, unreadable or of another kind.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}: check the path.")
    if path.suffix not in TABLE_SUFFIXES:
        raise InputError(f"{path} is neither .csv nor .tsv nor .parquet: convert it to one of them.")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            names = [str(name) for name in table.columns]
        else:
            with open(path, encoding="utf-8-sig") as file:
                header = file.readline()
            separator = max(",;\t", key=header.count)
            names = next(csv.reader([header], delimiter=separator), [])
            # Without `index_col` a row with more cells than the header has names would shift them all by one.
            with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
                table = pd.read_csv(
                    path, sep=separator, dtype=str, encoding="utf-8-sig", keep_default_na=False, na_values=[""],
                    quoting=csv.QUOTE_MINIMAL, index_col=False,
                )  # fmt: skip
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: save it with that encoding.") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty: it needs a header line and rows.") from None
    except pd.errors.ParserWarning:
        raise InputError(
            f"{path} has rows with more cells than its header has names: give every row as many."
        ) from None
    # The engines of pandas raise many kinds of exception on damaged files.
    except Exception as error:
        raise InputError(f"{path} cannot be read ({one_line(error)}): save it again as plain CSV or Parquet.") from None
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise InputError(f"{path} has two columns named {repeated[0]!r}: rename one.")
    if table.empty:
        raise InputError(f"{path} is empty: it has no rows.")
    return table


def read_interactions(
    path: Path,
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    time_format: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Read interactions.

    Returns:
        Columns `user` and `item` (text) and, where the file has times, `timestamp` (int64 Unix seconds).

    Raises:
        InputError: see `load_table`.
    """
    raw = read_table(path)
    user = require_column(raw, path, "user", USER_NAMES, user_column)
    item = require_column(raw, path, "item", ITEM_NAMES, item_column)
    time = find_column(raw, path, TIME_NAMES, time_column)
    table = pd.DataFrame({Columns.USER: read_ids(raw[user], user, path), Columns.ITEM: read_ids(raw[item], item, path)})
    if time is not None:
        times = raw[time]
        day = find_column(raw, path, DAY_NAMES)
        if day not in (None, time) and are_clock_times(times):
            times = raw[day].astype(str).where(raw[day].notna()) + " " + times.astype(str)
        table[Columns.TIME] = read_times(times, time, path, time_format)
    return table


def read_items(
    path: Path,
    item_column: str | None = None,
    category_column: str | None = None,
    name_column: str | None = None,
    image_column: str | None = None,
    group_column: str | None = None,
) -> tuple[pd.DataFrame, dict[str, str] | None]:
    """Read an item table.

    Returns:
        Columns `item`, `category`, `name` and `group` (where the file has them) and the attributes, all text; and the
        picture's path of each item, or None without an image column.

    Raises:
        InputError: see `load_table`.
    """
    raw = read_table(path)
    # The file of interactions may call the item otherwise.
    item_column = item_column if item_column in raw else None
    item = require_column(raw, path, "item", ITEM_NAMES, item_column)
    category = find_column(raw, path, CATEGORY_NAMES, category_column)
    name = find_column(raw, path, TEXT_NAMES, name_column)
    group = find_column(raw, path, GROUP_NAMES, group_column)
    image = find_column(raw, path, IMAGE_NAMES, image_column)
    ids = read_ids(raw[item], item, path)
    repeated = ids.duplicated()
    if repeated.any():
        row = int(np.flatnonzero(repeated)[0])
        raise InputError(f"{path} lists item {ids[row]!r} twice (again in row {row + 1}): keep one row an item.")
    table = pd.DataFrame({Columns.ITEM: ids})
    if category is not None:
        table[Columns.CATEGORY] = raw[category].astype(object).where(raw[category].notna(), UNKNOWN).astype(str)
    if name is not None:
        table[Columns.NAME] = raw[name].astype(object).where(raw[name].notna(), "").astype(str)
    if group is not None:
        table[Columns.GROUP] = require_groups(raw, group, path)
    for column in raw.columns:
        if column not in (item, category, name, group, image):
            # Another column may bear the name of one that was chosen, such as `category`.
            attribute = f"{column}_attribute" if column in table else str(column)
            table[attribute] = raw[column].astype(object).where(raw[column].notna(), "").astype(str)
    if image is None:
        return table, None
    named = raw[image].notna()
    return table, dict(zip(ids[named], raw[image][named].astype(str), strict=True))


def require_groups(table: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """A column of groups as text.

    Raises:
        InputError: a cell is empty; the sentence names its row.
    """
    values = table[column].astype(object)
    empty = (values.isna() | (values == "")).to_numpy()
    if empty.any():
        raise InputError(
            f"{path} has no {column!r} in row {int(np.flatnonzero(empty)[0]) + 1}: give every item a group "
            "(one without variants is a group of its own), or name another column with group_column."
        )
    return read_ids(table[column], column, path)


def settle_unlisted(
    tables: Sequence[tuple[Path, pd.DataFrame]], catalogue: pd.DataFrame, items_path: Path, choice: str
) -> tuple[list[tuple[Path, pd.DataFrame]], pd.DataFrame]:
    """Interactions and catalogue after a choice about the items that were bought and have no row in the item table.

    Args:
        tables: files of interactions and what was read from them.
        catalogue, items_path: the item table and its file.
        choice: "refuse", "keep" (as items of which nothing is known) or "drop" (their interactions are left out).

    Raises:
        InputError: there are such items, and the choice is to refuse them.

    Warns of how many were kept or left out.
    """
    settled, added = [], []
    for path, table in tables:
        unlisted = ~table[Columns.ITEM].isin(catalogue[Columns.ITEM]).to_numpy()
        if not unlisted.any():
            settled.append((path, table))
            continue
        ids = table[Columns.ITEM][unlisted].unique()
        known = f"{len(ids):,} items in {path} have no row in {items_path}"
        if choice == "refuse":
            difference = how_ids_differ(ids, catalogue[Columns.ITEM])
            raise InputError(
                f"{known}: {', '.join(map(repr, ids[:3]))}{', ...' if len(ids) > 3 else ''} (first in row "
                f"{table.index[unlisted][0] + 1}); "
                + (difference or "add them, remove their interactions, or say unlisted_items='keep' or 'drop'")
                + "."
            )
        if choice == "keep":
            tell(f"{known}: they are kept as items of which nothing is known.")
            added.append(pd.Series(ids))
            settled.append((path, table))
        else:
            tell(f"{known}: they are left out, and their {unlisted.sum():,} interactions.")
            settled.append((path, table[~unlisted].reset_index(drop=True)))
    if added:
        new = pd.DataFrame({Columns.ITEM: pd.concat(added).unique()})
        if Columns.CATEGORY in catalogue:
            new[Columns.CATEGORY] = UNKNOWN
        if Columns.GROUP in catalogue:
            new[Columns.GROUP] = new[Columns.ITEM]
        catalogue = pd.concat([catalogue, new], ignore_index=True).fillna("")
    return settled, catalogue


def _path(given: str | Path | None, folder: Path | None, *names: str) -> Path | None:
    """The path given by the user, else the first that exists in the folder."""
    if given is not None:
        return Path(given)
    if folder is None:
        return None
    candidates = (folder / f"{name}{suffix}" for name in names for suffix in TABLE_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _with_given_split(
    name: str, tables: Sequence[pd.DataFrame], catalogue: pd.DataFrame, keep_unused_items: bool
) -> Dataset:
    """A dataset whose split came with it: training, perhaps validation, and test."""
    users, user_ids = index_ids(pd.concat([table[Columns.USER] for table in tables]))
    catalogue = catalogue.sort_values(Columns.ITEM)
    if not keep_unused_items:
        used = pd.concat([table[Columns.ITEM] for table in tables])
        catalogue = catalogue[catalogue[Columns.ITEM].isin(used)]
    catalogue = catalogue.reset_index(drop=True)
    index = pd.Index(catalogue[Columns.ITEM])
    if len(tables) == 2:
        tables = [tables[0], tables[0][:0], tables[1]]
    parts, start = [], 0
    for table in tables:
        part = table.assign(
            **{
                Columns.USER: users[start : start + len(table)],
                Columns.ITEM: index.get_indexer(table[Columns.ITEM]),
            }
        )
        parts.append(part)
        start += len(table)
    split = given_split(parts[0], parts[1], parts[2], len(user_ids), len(catalogue))
    return Dataset(name, user_ids, catalogue, *split, split={"kind": "given"})


def _pictures(folder: Path) -> list[Path]:
    """All pictures below a folder, in alphabetical order."""
    if not folder.is_dir():
        raise InputError(f"there is no image folder {folder}: check the path.")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def _matched(folder: Path, ids: Sequence[str]) -> list[Source]:
    """The picture of each item by its file's name; None where there is none."""
    pictures = _pictures(folder)
    catalogue = set(ids)
    by_id: dict[str, Path] = {}
    for path in pictures:
        if path.stem in catalogue:
            if path.stem in by_id:
                raise InputError(
                    f"both {by_id[path.stem]} and {path} are named after item {path.stem!r}: keep one, "
                    "or name the pictures in an 'image' column of the item table."
                )
            by_id[path.stem] = path
    if not by_id:
        found = f"{pictures[0].name!r}, for example" if pictures else "there are no pictures at all"
        raise InputError(
            f"no picture in {folder} is named after an item ({found}, while the first item is {ids[0]!r}): "
            "name them <item>.jpg, or give their paths in an 'image' column of the item table."
        )
    return [by_id.get(item) for item in ids]


def _named(folder: Path, ids: Sequence[str], paths: dict[str, str]) -> list[Source]:
    """The picture of each item by its path below the folder; None where none is named."""
    if not folder.is_dir():
        raise InputError(f"there is no image folder {folder}: check the path.")
    sources: list[Source] = []
    for item in ids:
        named = paths.get(item)
        # Read as a Windows path, both kinds of slash separate.
        path = None if named is None else PureWindowsPath(named)
        if path is not None and (path.anchor or ".." in path.parts):
            raise InputError(
                f"the picture {named!r} of item {item!r} lies outside the image folder: paths are relative to {folder}."
            )
        sources.append(None if path is None else folder.joinpath(*path.parts))
    if not any(isinstance(source, Path) and os.path.isfile(source) for source in sources):
        raise InputError(
            f"no picture named in the item table is in {folder} (the first is {next(iter(paths.values()), '')!r}): "
            "check the image folder; paths are relative to it."
        )
    return sources

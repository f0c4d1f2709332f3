"""Reader of Amazon Reviews 2023 (McAuley Lab): ratings or reviews of a category, its metadata, and its pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from imgrec_lib.data.dataset import Columns, Dataset
from imgrec_lib.data.decoding import Fit, Resample
from imgrec_lib.data.formats import check_encoding, find_table, records_of, table_stem
from imgrec_lib.data.ids import read_ids
from imgrec_lib.data.interactions import read_numbers
from imgrec_lib.data.items import UNKNOWN
from imgrec_lib.data.pictures import addresses_of, list_pictures, pictures_by_column, with_pictures
from imgrec_lib.data.split import check_split, first_occurrences, split_dataset, with_given_split
from imgrec_lib.data.storing import reading_of
from imgrec_lib.data.streams import stream_table
from imgrec_lib.data.times import check_forms, read_times
from imgrec_lib.errors import InputError, tell
from imgrec_lib.files import plain_path
from imgrec_lib.options import Count, CountOrNone, Positive

PARTS = ("train", "valid", "test")
"""The parts of the published split that holds out each user's last item, between the category's name and ".csv"."""
POOR = 3
"""A rating below it, of one to five stars, says that the buyer was not pleased."""


def load_amazon2023(
    root: str | Path,
    *,
    category: str | None = None,
    min_rating: float | None = None,
    repeated: Literal["first", "last"] = "first",
    time_format: str | list[str] | None = None,
    encoding: str | None = None,
    core: Count | None = None,
    min_interactions: int | None = 5,
    split: Literal["random", "time", "date", "given"] = "random",
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
) -> Dataset:
    """Read a category of Amazon Reviews 2023 as published, compressed or not (Hou et al. 2024).

    Interactions are in `<Category>.csv` (`user_id,parent_asin,rating,timestamp`, also the published 5-core), or in the
    reviews `<Category>.jsonl`, or in the published split `<Category>.train.csv`, `.valid.csv` and `.test.csv`, whose
    column `history` is not read. `meta_<Category>.jsonl` describes the items: without it there are ids alone. Every
    file may be compressed, or be of another of the forms of `load_table`, and is read in a stream: of the metadata only
    the items of the dataset are kept.

    An item is a `parent_asin`. Its category is the last of its `categories`, its name its title, its description its
    `features` and `description`; price, store and main category are attributes. Its pictures are the files of
    `images/` below the root that bear its id (`imgrec pictures` downloads them so), or the names of its addresses; the
    picture MAIN is the first.

    Args:
        root: folder with these files.
        category: the category's name, such as "All_Beauty"; not needed where the folder has one.
        min_rating: ratings below it are no interactions; None takes every rating for one, and says how many are poor.
        repeated: which of a user's ratings of an item that are left counts, the "first" or the "last".
        time_format: the form of the times, or several, where it is not recognised; see `check_forms`.
        encoding: of the ratings, where they are text; see `load_table`.
        core: users and items with fewer interactions than this are left out, again and again until all have as many, as
            in the published 5-core; None leaves nothing out.
        min_interactions: users with fewer different items are dropped; None drops none. Not used on a given split.
        split: "random" or "time" (the latest of every user), "date" (of all users what came after a day), or "given",
            the published split.
        seed, held_out, validate, validate_from, test_from: how much is held out, and when: see `split_dataset`.
        image_size: height and width of the stored pictures, in pixels.
        image_fit: "squash" changes the aspect ratio (the papers' choice), "pad" adds white, "crop" keeps the centre.
        image_resample: "bicubic", "bilinear" or "nearest".
        cache: where the image store is kept; by default `default_cache()`.
        progress: whether to show progress bars.

    Raises:
        InputError: a file or column is missing or damaged, several categories could be meant, or nothing is left.
    """
    reading = reading_of(load_amazon2023, locals())
    check_forms(time_format)
    check_encoding(encoding)
    if split != "given":
        check_split(min_interactions, split, held_out, validate, validate_from, test_from)
    root = plain_path(root)
    category = _category(root) if category is None else category
    parts = [find_table(root, f"{category}.{part}") for part in PARTS]
    whole = find_table(root, category)
    if split != "given" and whole is None and any(parts):
        tell(
            f"{root} has the published split of {category} and not all interactions: the split is kept (split='given')."
        )
        split = "given"
    files = parts if split == "given" else [whole]
    missing = [f"{category}.{part}.csv" for part, path in zip(PARTS, parts, strict=True) if path is None]
    if None in files:
        names = ", ".join(missing) if split == "given" else f"{category}.csv (ratings) or {category}.jsonl (reviews)"
        raise InputError(f"{root} lacks {names}, also with .gz: get it from the data set's page.")
    tables = [
        _interactions(path, min_rating, repeated, time_format, encoding, progress) for path in files if path is not None
    ]
    if core is not None and split == "given":
        raise InputError("the published split is kept as it is: leave core out, or read all interactions.")
    if core is not None:
        tables = [_core(tables[0], core)]
    pictures = _picture_folder(root)
    ids = pd.DataFrame({Columns.ITEM: np.unique(np.concatenate([table[Columns.ITEM].unique() for table in tables]))})
    name = f"amazon2023 {category}"
    if split == "given":
        dataset = with_given_split(name, tables, ids, keep_unused_items=False)
    else:
        dataset = split_dataset(
            name, tables[0], ids, min_interactions=min_interactions, split=split, seed=seed, held_out=held_out,
            validate=validate, validate_from=validate_from, test_from=test_from,
        )  # fmt: skip
    meta = find_table(root, f"meta_{category}")
    if meta is None:
        tell(f"{root} has no meta_{category}.jsonl: nothing but their ids is known of the items.")
        return dataset
    items, written = _metadata(meta, dataset.items[Columns.ITEM], progress)
    dataset = replace(dataset, items=items, picture_addresses=addresses_of(written))
    if pictures is None:
        return dataset
    found = pictures_by_column(pictures, items[Columns.ITEM].tolist(), written, meta)
    return with_pictures(
        dataset,
        name,
        found,
        cache,
        size=image_size,
        fit=image_fit,
        resample=image_resample,
        progress=progress,
        reading=reading,
    )


def _category(root: Path) -> str:
    """The one category of a folder, by the names of its files."""
    if not root.is_dir():
        raise InputError(f"there is no folder {root}: give `root` the folder of the category's files.")
    stems = {stem for path in root.iterdir() if (stem := table_stem(path.name)) is not None}
    found = sorted({re.sub(rf"\.({'|'.join(PARTS)})$", "", stem.removeprefix("meta_")) for stem in stems})
    if len(found) != 1:
        raise InputError(
            f"{root} has files of {len(found)} categories{' (' + ', '.join(found[:5]) + ')' if found else ''}: "
            "name one with the option category, such as All_Beauty."
        )
    return found[0]


def _interactions(
    path: Path,
    min_rating: float | None,
    repeated: Literal["first", "last"],
    time_format: str | list[str] | None,
    encoding: str | None,
    progress: bool,
) -> pd.DataFrame:
    """Columns `user`, `item` (categoricals) and `timestamp` (Unix seconds)."""
    columns = ("user_id", "parent_asin", "rating", "timestamp")
    raw = stream_table(path, columns, "timestamp", encoding=encoding, progress=progress)
    table = pd.DataFrame(
        {
            Columns.USER: read_ids(raw["user_id"], "user_id", path),
            Columns.ITEM: read_ids(raw["parent_asin"], "parent_asin", path),
            Columns.TIME: read_times(raw["timestamp"], "timestamp", path, time_format),
        }
    )
    ratings = read_numbers(raw["rating"], "rating", path)
    poor = ratings < (POOR if min_rating is None else min_rating)
    counted = f"{int(poor.sum()):,} of {len(poor):,} ratings in {path} are below"
    if min_rating is not None:
        tell(f"{counted} {min_rating:g} and left out.")
        table = table[~poor].reset_index(drop=True)
        if table.empty:
            raise InputError(f"{path} has no rating of at least {min_rating:g}: lower min_rating.")
    elif poor.any():
        tell(f"{counted} {POOR}, and each was counted as a purchase: to count only good ones, say min_rating={POOR}.")
    if repeated == "last":
        table = table.sort_values(Columns.TIME, kind="stable").drop_duplicates(
            [Columns.USER, Columns.ITEM], keep="last"
        )
    return table


def _core(table: pd.DataFrame, least: int) -> pd.DataFrame:
    """The interactions of users and items that have at least so many different ones among themselves."""
    pairs = first_occurrences(table)
    codes = [pd.factorize(pairs[column])[0] for column in (Columns.USER, Columns.ITEM)]
    kept = np.full(len(pairs), True)
    while True:
        enough = kept.copy()
        for code in codes:
            enough &= np.bincount(code[kept], minlength=len(pairs))[code] >= least
        if (enough == kept).all():
            break
        kept = enough
    if not kept.any():
        raise InputError(f"no user and item have {least} interactions among themselves: lower core.")
    return pairs[kept].reset_index(drop=True)


def _picture_folder(root: Path) -> Path | None:
    folder = root / "images"
    return folder if folder.is_dir() and list_pictures(folder) else None


def _metadata(path: Path, ids: pd.Series, progress: bool) -> tuple[pd.DataFrame, dict[str, str]]:
    """The item table of some items, in their order, and what it says of each one's pictures."""
    wanted = set(ids)
    rows: dict[str, dict[str, str]] = {}
    written: dict[str, str] = {}
    for record in records_of(path, progress):
        item = str(record.get("parent_asin"))
        if item not in wanted or item in rows:
            continue
        categories = [text for text in _texts(record.get("categories")) if text]
        main = str(record.get("main_category") or "")
        rows[item] = {
            Columns.CATEGORY: categories[-1] if categories else main or UNKNOWN,
            Columns.NAME: str(record.get("title") or ""),
            Columns.DESCRIPTION: " ".join([*_texts(record.get("features")), *_texts(record.get("description"))]),
            "main_category": main,
            "store": str(record.get("store") or ""),
            "price": _price(record.get("price")),
        }
        pictures = list(_pictures(record.get("images")))
        if pictures:
            written[item] = json.dumps(pictures)
    if not rows:
        raise InputError(f"{path} describes no item of the interactions: check that it is of the same category.")
    if len(rows) < len(ids):
        tell(f"{len(ids) - len(rows):,} of {len(ids):,} items have no row in {path}: nothing but their ids is known.")
    nothing = {Columns.CATEGORY: UNKNOWN}
    table = pd.DataFrame([rows.get(item, nothing) for item in ids]).fillna("")
    table.insert(0, Columns.ITEM, ids.to_numpy())
    return table, written


def _texts(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)] if value else []


def _price(value: Any) -> str:
    """A price as text; "from 12.99" and the like say what it is at least."""
    text = "" if value is None else str(value).strip().removeprefix("from ")
    return "" if text in ("None", "—", "-", "") else text


def _pictures(images: Any) -> Iterable[dict[str, str]]:
    """The addresses of a record's pictures by their sizes, MAIN first.

    Both published forms are read: a list of objects, and an object of lists.
    """
    if isinstance(images, Mapping):
        lists = {name: values for name, values in images.items() if isinstance(values, list)}
        images = [dict(zip(lists, each, strict=False)) for each in zip(*lists.values(), strict=False)]
    objects = [each for each in images or [] if isinstance(each, Mapping)]
    for each in sorted(objects, key=lambda each: each.get("variant") != "MAIN"):
        sizes = {name: text for name, text in each.items() if isinstance(text, str) and "://" in text}
        if sizes:
            yield sizes

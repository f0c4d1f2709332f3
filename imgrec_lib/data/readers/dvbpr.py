"""Reader of the data sets published with DVBPR (Kang et al., ICDM 2017): Amazon Fashion, Men, Women and Tradesy.

Each is one `.npy` file of six entries: the training, validation and test dictionaries (user -> list of records with a
`productid`), the item table (item -> record with JPEG bytes `imgs`; on Fashion a one-hot `c`, on Men and Women the
Amazon category paths `categories`), the number of users and the number of items. `published.py` takes them out of the
file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imgrec_lib.data.dataset import Columns, Dataset
from imgrec_lib.data.decoding import FileSlice, Fit, Resample, Source
from imgrec_lib.data.ids import plain_id, read_ids
from imgrec_lib.data.interactions import Repeated, check_counting, rows_that_count, telling_columns
from imgrec_lib.data.readers.published import read_published
from imgrec_lib.data.split import PAIR, given_split
from imgrec_lib.data.storing import cached_images, reading_of
from imgrec_lib.data.times import check_forms, read_times
from imgrec_lib.errors import InputError, tell
from imgrec_lib.files import plain_path
from imgrec_lib.options import Count

FASHION_CATEGORIES = (
    "men's tops",
    "women's tops",
    "men's bottoms",
    "women's bottoms",
    "men's shoes",
    "women's shoes",
)
# Of a category path such as Clothing > Men > Shirts > Casual, counted from 0.
CATEGORY_DEPTH = 2
ITEMS_A_CATEGORY = 50
Key = str | int


def load_dvbpr(
    root: str | Path,
    *,
    name: str | None = None,
    time_format: str | list[str] | None = None,
    where: dict[str, Any] | None = None,
    weight_column: str | None = None,
    min_weight: float | None = None,
    repeated: Repeated = "first",
    image_size: Count = 224,
    image_fit: Fit = "squash",
    image_resample: Resample = "bicubic",
    cache: str | Path | None = None,
    progress: bool = True,
) -> Dataset:
    """Read a data set published with DVBPR, with its split.

    An item's id is its ASIN where the file has it, else its number. Textual categories are the third level of an
    item's first path (its last level where it is shorter); labels with fewer than 50 items become "other".
    Times are kept where every record has a `unixReviewTime`.

    Args:
        root: the `.npy` file.
        name: what to call the dataset; by default the file's name.
        time_format: the form of the times, or several, where it is not recognised; see `check_forms`.
        where, weight_column, min_weight, repeated: which of the records are purchases, by their entries such as
            `overall`, in each part of the split; see `load_table`.
        image_size: height and width of the stored pictures, in pixels.
        image_fit: "squash" changes the aspect ratio (the papers' choice), "pad" adds white, "crop" keeps the centre.
        image_resample: "bicubic", "bilinear" or "nearest" (DVBPR's, by Pillow's default of its time).
        cache: where the image store is kept; by default `default_cache()`.
        progress: whether to show progress bars.

    Raises:
        InputError: the file is missing, truncated, not in the published format, or wants something executed.
    """
    reading = reading_of(load_dvbpr, locals())
    forms = check_forms(time_format)
    check_counting(weight_column, min_weight, repeated)
    path = plain_path(root)
    train, validation, test, table, n_users, n_items = read_published(path, progress)
    if isinstance(table, list):
        table = dict(enumerate(table))
    for what, part in (("training", train), ("validation", validation), ("test", test), ("item", table)):
        if not isinstance(part, dict):
            raise InputError(f"{path} is not in the published format: its {what} entry is no dictionary.")
    users = _ordered(train.keys() | validation.keys() | test.keys())
    keys = _ordered(table)
    for what, said, found in (("users", n_users, users), ("items", n_items, keys)):
        if not isinstance(said, int) or said != len(found):
            raise InputError(f"{path} says that it has {said} {what} but has {len(found)}: download it again.")

    user_index = {user: index for index, user in enumerate(users)}
    item_index = {item: index for index, item in enumerate(keys)}
    asked = {weight_column, *(where or ())}
    parts = [_interactions(path, part, user_index, item_index, asked) for part in (train, validation, test)]
    counted = partial(
        rows_that_count, path=path, where=where, weight_column=weight_column, min_weight=min_weight, repeated=repeated
    )
    parts = [
        part if part.empty else counted(part, part.drop(columns=[*PAIR, Columns.TIME], errors="ignore"))
        for part in _with_times(path, parts, forms)
    ]
    user_ids, item_ids = np.array(_ids(users, "user", path), dtype=object), _ids(keys, "item", path)
    split = given_split(parts[0], parts[1], parts[2], len(users), len(keys))

    records = [table[key] for key in keys]
    for key, record in zip(keys, records, strict=True):
        if not isinstance(record, dict):
            raise InputError(f"{path} is not in the published format: item {key} is no dictionary.")
    items = _item_table(item_ids, records)
    name = name or path.stem
    dataset = Dataset(name, user_ids, items, *split, split={"kind": "published"}, pictures_count=False)
    images = cached_images(
        name,
        [_picture(record.get("imgs")) for record in records],
        items[Columns.ITEM].tolist(),
        cache,
        size=image_size,
        fit=image_fit,
        resample=image_resample,
        progress=progress,
        reading=reading,
    )
    return dataset.with_images(images)


def _ordered(keys: Iterable[Key]) -> list[Key]:
    """Keys in numerical order, or in alphabetical order where one is no number."""
    keys = list(keys)
    return sorted(keys, key=None if all(isinstance(key, int) for key in keys) else str)


def _ids(keys: list[Key], what: str, path: Path) -> list[str]:
    """Keys as ids."""
    ids = read_ids(pd.Series([str(key) for key in keys], dtype=object), what, path)
    if ids.duplicated().any():
        raise InputError(f"{path} has two {what}s whose keys read alike as text: download it again.")
    return ids.tolist()


def _interactions(
    path: Path, part: dict[Any, Any], user_index: dict[Any, int], item_index: dict[Any, int], asked: set[str | None]
) -> pd.DataFrame:
    """One part of the split: user and item indices, the times as they are written, and what else counts.

    Args:
        asked: entries of the records that options name; those whose names speak of ratings and the like come with them.
    """
    users, items, times = [], [], []
    others: list[dict[str, Any]] = []
    entries: set[str] = set()
    telling: list[str] = []
    for user, records in part.items():
        for record in records if isinstance(records, list) else [records]:
            product = record.get("productid") if isinstance(record, dict) else None
            if not isinstance(product, str | int) or product not in item_index:
                raise InputError(
                    f"{path}: an interaction of user {user} has no productid, or one that is not in the item table."
                )
            users.append(user_index[user])
            items.append(item_index[product])
            times.append(record.get("unixReviewTime"))
            if not entries >= record.keys():
                entries |= record.keys()
                telling = [entry for entry in entries if entry in asked or telling_columns([entry])]
            others.append({entry: record.get(entry) for entry in telling})
    table = pd.DataFrame(others, index=range(len(users)))
    table[Columns.USER], table[Columns.ITEM] = users, items
    table[Columns.TIME] = pd.Series(times, index=range(len(times)), dtype=object)
    return table


def _with_times(path: Path, parts: list[pd.DataFrame], forms: list[str]) -> list[pd.DataFrame]:
    """The parts with their times in Unix seconds, or without times where a record has none."""
    written = pd.concat([part[Columns.TIME] for part in parts])
    missing = written.isna()
    if missing.any():
        if not missing.all():
            tell(f"{path}: {missing.sum():,} of {len(written):,} interactions have no time, so that no time is used.")
        return [part.drop(columns=Columns.TIME) for part in parts]
    seconds = read_times(written, "unixReviewTime", path, forms)
    ends = np.cumsum([len(part) for part in parts])
    return [
        part.assign(**{Columns.TIME: times}) for part, times in zip(parts, np.split(seconds, ends[:-1]), strict=True)
    ]


def _item_table(ids: list[str], records: list[dict[str, Any]]) -> pd.DataFrame:
    """Ids, and categories and titles where the file has them."""
    asins = [record.get("asin") for record in records]
    named = all(isinstance(asin, str) for asin in asins) and len(set(asins)) == len(asins)
    columns = {Columns.ITEM: [plain_id(str(asin)) for asin in asins] if named else ids}
    fashion = [_fashion_category(record.get("c")) for record in records]
    if all(fashion):
        columns[Columns.CATEGORY] = fashion
    elif any(record.get("categories") for record in records):
        labels = [_label(record.get("categories")) for record in records]
        counts = Counter(labels)
        columns[Columns.CATEGORY] = [label if counts[label] >= ITEMS_A_CATEGORY else "other" for label in labels]
    if any(isinstance(record.get("title"), str) for record in records):
        titles = [record.get("title") for record in records]
        columns[Columns.NAME] = [title if isinstance(title, str) else "" for title in titles]
    return pd.DataFrame(columns)


def _fashion_category(one_hot: Any) -> str:
    """The category that a one-hot vector stands for; empty where it is none."""
    values = one_hot.tolist() if isinstance(one_hot, np.ndarray) else one_hot
    n = len(FASHION_CATEGORIES)
    valid = isinstance(values, list) and len(values) == n and values.count(1) == 1 and values.count(0) == n - 1
    return FASHION_CATEGORIES[values.index(1)] if valid else ""


def _label(paths: Any) -> str:
    """The label of an item by its category paths."""
    path = paths[0] if isinstance(paths, list | tuple) and paths else None
    label = path[min(CATEGORY_DEPTH, len(path) - 1)] if isinstance(path, list | tuple) and path else None
    return label if isinstance(label, str) else "other"


def _picture(value: Any) -> Source:
    """The JPEG of an item record."""
    if isinstance(value, str):
        return value.encode("latin-1", "replace")
    return value if isinstance(value, FileSlice) else None

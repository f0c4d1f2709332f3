"""Reader of the H&M Personalized Fashion Recommendations data, in the layout of its competition."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from imgrec_lib.data.columns import find_column
from imgrec_lib.data.dataset import Columns, Dataset
from imgrec_lib.data.decoding import Fit, Resample
from imgrec_lib.data.formats import check_encoding, find_table, read_table
from imgrec_lib.data.ids import read_ids
from imgrec_lib.data.interactions import Repeated, check_counting, read_interactions
from imgrec_lib.data.items import IMAGE_NAMES, read_categories, require_groups, settle_unlisted, written_pictures
from imgrec_lib.data.pictures import find_pictures, only_pictured, with_pictures
from imgrec_lib.data.split import check_split, split_dataset
from imgrec_lib.data.storing import reading_of
from imgrec_lib.data.times import DAY, check_forms
from imgrec_lib.errors import InputError
from imgrec_lib.files import plain_path
from imgrec_lib.options import Count, CountOrNone, Positive

ATTRIBUTES = (
    "product_type_name",
    "product_group_name",
    "graphical_appearance_name",
    "colour_group_name",
    "perceived_colour_master_name",
    "index_name",
    "section_name",
    "garment_group_name",
)


def load_hm(
    root: str | Path,
    *,
    min_interactions: int | None = 5,
    split: str = "random",
    seed: CountOrNone = 0,
    held_out: Positive = 1,
    validate: bool = True,
    validate_from: str | None = None,
    test_from: str | None = None,
    since: str | None = None,
    until: str | None = None,
    time_format: str | list[str] | None = None,
    encoding: str | None = None,
    where: dict[str, Any] | None = None,
    weight_column: str | None = None,
    min_weight: float | None = None,
    repeated: Repeated = "first",
    category_column: str = "product_type_name",
    group_column: str | None = None,
    require_image: bool = True,
    keep_unused_items: bool = False,
    unlisted_items: Literal["refuse", "keep", "drop"] = "refuse",
    image_size: Count = 224,
    image_fit: Fit = "squash",
    image_resample: Resample = "bicubic",
    cache: str | Path | None = None,
    progress: bool = True,
) -> Dataset:
    """Read H&M's customers, articles, purchases and photographs.

    Timestamps are midnight UTC of the day of purchase: the data has no finer time. Of an article are kept its name
    (`prod_name`), description (`detail_desc`, where the file has it), category, group and the columns of `ATTRIBUTES`.
    An article may have further photographs, as a shop's own data in this layout does: `<article_id>_1.jpg`,
    `<article_id>-2.png`, all that lies in a folder `<article_id>`, or what a column `images` lists.
    Both tables may be in any of the forms of `load_table`, and compressed. Every row is a purchase, unless the options
    say which are not.

    Args:
        root: folder with `transactions_train.csv`, `articles.csv` and `images/0xx/<article_id>.jpg`.
        min_interactions: customers with fewer different articles are dropped; None drops none.
        split: "random" or "time" (the latest of every user), or "date" (of all users what came after a day).
        seed, held_out, validate, validate_from, test_from: how much is held out, and when: see `split_dataset`.
        since, until: first and last day of the purchases to use, such as "2020-09-16".
        time_format: the form of the days, or several, where it is not recognised; see `check_forms`.
        encoding, where, weight_column, min_weight, repeated: see `load_table`.
        category_column: the column of `articles.csv` that is the category.
        group_column: the column of `articles.csv` that variants of one product share; by default their product code,
            which is the article's id without its last three digits.
        require_image: whether articles without a photograph, and their purchases, are left out.
        keep_unused_items: whether articles that no remaining customer bought stay in the catalogue.
        unlisted_items: what happens to articles that were bought and have no row in `articles.csv`: "refuse", "keep"
            (nothing is known of them) or "drop" (their purchases are left out).
        image_size: height and width of the stored pictures, in pixels.
        image_fit: "squash" changes the aspect ratio (the papers' choice), "pad" adds white, "crop" keeps the centre.
        image_resample: "bicubic", "bilinear" or "nearest" (DVBPR's, by Pillow's default of its time).
        cache: where the image store is kept; by default `default_cache()`.
        progress: whether to show progress bars.

    Raises:
        InputError: a file or column is missing or unreadable, a day is malformed, a purchased article is not
            in `articles.csv`, or nothing is left.
    """
    reading = reading_of(load_hm, locals())
    days = (_day(since), _day(until))
    check_forms(time_format)
    check_counting(weight_column, min_weight, repeated)
    check_encoding(encoding)
    check_split(min_interactions, split, held_out, validate, validate_from, test_from)
    root = plain_path(root)
    articles_path = _table_of(root, "articles")
    raw = read_table(articles_path, encoding)
    group_columns = () if group_column is None else (group_column,)
    for column in ("article_id", "prod_name", category_column, *ATTRIBUTES, *group_columns):
        find_column(raw, articles_path, (), column)
    ids = read_ids(raw["article_id"], "article_id", articles_path)
    if ids.duplicated().any():
        raise InputError(f"{articles_path} lists article {ids[ids.duplicated()].iloc[0]} twice: keep one row.")
    items = pd.DataFrame(
        {
            Columns.ITEM: ids,
            Columns.CATEGORY: read_categories(raw[category_column], category_column, articles_path),
            Columns.NAME: raw["prod_name"].fillna(""),
        }
    )
    if "detail_desc" in raw:
        items[Columns.DESCRIPTION] = raw["detail_desc"].fillna("")
    items[Columns.GROUP] = ids.str[:-3] if group_column is None else require_groups(raw, group_column, articles_path)
    for column in ATTRIBUTES:
        if column != category_column:
            items[column] = raw[column].fillna("")

    written = written_pictures(raw, find_column(raw, articles_path, IMAGE_NAMES), ids)
    purchases_path = _table_of(root, "transactions_train")
    purchases = read_interactions(
        purchases_path, user_column="customer_id", item_column="article_id", time_column="t_dat",
        time_format=time_format, where=where, weight_column=weight_column, min_weight=min_weight, repeated=repeated,
        encoding=encoding, streamed=True, progress=progress,
    )  # fmt: skip
    purchases = _of_days(purchases, days, purchases_path)
    [(_, table)], items = settle_unlisted([(purchases_path, purchases)], items, articles_path, unlisted_items)
    pictures = find_pictures(root / "images", items[Columns.ITEM].tolist(), written, articles_path)
    if require_image:
        [(_, table)], items = only_pictured([(purchases_path, table)], items, pictures)
    dataset = split_dataset(
        "hm",
        table,
        items,
        min_interactions=min_interactions,
        keep_unused_items=keep_unused_items,
        split=split,
        seed=seed,
        held_out=held_out,
        validate=validate,
        validate_from=validate_from,
        test_from=test_from,
    )
    return with_pictures(
        dataset, "hm", pictures, cache, size=image_size, fit=image_fit, resample=image_resample, progress=progress,
        reading=reading,
    )  # fmt: skip


def _day(text: str | None) -> int | None:
    """Days since 1970 of an ISO date."""
    if text is None:
        return None
    try:
        return int(np.datetime64(text, "D").astype(np.int64))
    except ValueError:
        raise InputError(f"{text!r} is not a day: write it as 2020-09-16.") from None


def _table_of(root: Path, name: str) -> Path:
    path = find_table(root, name) if root.is_dir() else None
    if path is None:
        raise InputError(f"there is no file {root / name}.csv: `root` must be the folder of the competition's files.")
    return path


def _of_days(table: pd.DataFrame, period: tuple[int | None, int | None], path: Path) -> pd.DataFrame:
    """The purchases of a period, with the day on which they were made as their time.

    Args:
        period: first and last day to use, as days since 1970; None for no bound.
    """
    table[Columns.TIME] = table[Columns.TIME] // DAY * DAY
    first, last = (None if bound is None else bound * DAY for bound in period)
    if first is not None:
        table = table[table[Columns.TIME] >= first]
    if last is not None:
        table = table[table[Columns.TIME] <= last]
    if table.empty:
        raise InputError(f"there are no purchases in {path} between the days asked for: widen since and until.")
    return table

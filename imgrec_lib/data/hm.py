"""Reader of the H&M Personalized Fashion Recommendations data, in the layout of its competition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from tqdm.auto import tqdm

from imgrec_lib.data.dataset import Columns, Dataset
from imgrec_lib.data.images import cached_images
from imgrec_lib.data.split import split_dataset
from imgrec_lib.data.table import find_column, read_table, require_groups
from imgrec_lib.data.times import DAY, check_forms, read_times
from imgrec_lib.errors import InputError
from imgrec_lib.options import Positive

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
    seed: int = 0,
    held_out: Positive = 1,
    validate: bool = True,
    validate_from: str | None = None,
    test_from: str | None = None,
    since: str | None = None,
    until: str | None = None,
    time_format: str | list[str] | None = None,
    category_column: str = "product_type_name",
    group_column: str | None = None,
    require_image: bool = True,
    keep_unused_items: bool = False,
    image_size: int = 224,
    image_fit: str = "squash",
    image_resample: str = "bicubic",
    cache: str | Path | None = None,
    progress: bool = True,
) -> Dataset:
    """Read H&M's customers, articles, purchases and photographs.

    Timestamps are midnight UTC of the day of purchase: the data has no finer time.

    Args:
        root: folder with `transactions_train.csv`, `articles.csv` and `images/0xx/<article_id>.jpg`.
        min_interactions: customers with fewer different articles are dropped; None drops none.
        split: "random" or "time" (the latest of every user), or "date" (of all users what came after a day).
        seed, held_out, validate, validate_from, test_from: how much is held out, and when: see `split_dataset`.
        since, until: first and last day of the purchases to use, such as "2020-09-16".
        time_format: the form of the days, or several, where it is not recognised; see `check_forms`.
        category_column: the column of `articles.csv` that is the category.
        group_column: the column of `articles.csv` that variants of one product share; by default their product code,
            which is the article's id without its last three digits.
        require_image: whether articles without a photograph, and their purchases, are left out.
        keep_unused_items: whether articles that no remaining customer bought stay in the catalogue.
        image_size: height and width of the stored pictures, in pixels.
        image_fit: "squash" changes the aspect ratio (the papers' choice), "pad" adds white, "crop" keeps the centre.
        image_resample: "bicubic", "bilinear" or "nearest" (DVBPR's, by Pillow's default of its time).
        cache: where the image store is kept; by default `default_cache()`.
        progress: whether to show progress bars.

    Raises:
        InputError: a file or column is missing or unreadable, a day is malformed, a purchased article is not
            in `articles.csv`, or nothing is left.
    """
    days = (_day(since), _day(until))
    forms = check_forms(time_format)
    root = Path(root)
    articles_path, purchases_path = root / "articles.csv", root / "transactions_train.csv"
    raw = read_table(articles_path).fillna("")
    group_columns = () if group_column is None else (group_column,)
    for column in ("article_id", "prod_name", category_column, *ATTRIBUTES, *group_columns):
        find_column(raw, articles_path, "item", (), column, needed=True)
    ids = raw["article_id"]
    if ids.duplicated().any():
        raise InputError(f"{articles_path} lists article {ids[ids.duplicated()].iloc[0]} twice: keep one row.")
    items = pd.DataFrame({Columns.ITEM: ids, Columns.CATEGORY: raw[category_column], Columns.NAME: raw["prod_name"]})
    items[Columns.GROUP] = ids.str[:-3] if group_column is None else require_groups(raw, group_column, articles_path)
    for column in ATTRIBUTES:
        if column != category_column:
            items[column] = raw[column]

    photographs = {path.stem: path for path in sorted((root / "images").glob("*/*.jpg"))}
    if not photographs:
        raise InputError(f"there is no photograph in {root / 'images'}: they are expected as 0xx/<article_id>.jpg.")
    if require_image:
        items = items[items[Columns.ITEM].isin(photographs)]
        if items.empty:
            raise InputError(f"no photograph in {root / 'images'} is named after an article of {articles_path}.")
    table = _read_purchases(purchases_path, ids, days, forms, progress)
    dataset = split_dataset(
        "hm",
        table[table[Columns.ITEM].isin(items[Columns.ITEM])],
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
    kept = dataset.items[Columns.ITEM].tolist()
    images = cached_images(
        "hm",
        [photographs.get(item) for item in kept],
        kept,
        cache,
        size=image_size,
        fit=image_fit,
        resample=image_resample,
        progress=progress,
    )
    return dataset.with_images(images)


def _day(text: str | None) -> int | None:
    """Days since 1970 of an ISO date."""
    if text is None:
        return None
    try:
        return int(np.datetime64(text, "D").astype(np.int64))
    except ValueError:
        raise InputError(f"{text!r} is not a day: write it as 2020-09-16.") from None


def _read_purchases(
    path: Path, articles: pd.Series, period: tuple[int | None, int | None], forms: list[str], progress: bool
) -> pd.DataFrame:
    """Read the purchases block by block: the competition's file has 31 million rows and 3.5 GB.

    Args:
        period: first and last day to use, as days since 1970; None for no bound.
        forms: see `check_forms`.

    Returns:
        `user` and `item` as categoricals of the original ids, and `timestamp` in seconds.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}: `root` must be the folder of the competition's files.")
    known = pa.array(articles)
    customer_numbers: dict[str, int] = {}
    day_numbers: dict[str, int] = {}
    users, items, days = [], [], []
    n_read = 0
    try:
        with (
            pa.OSFile(str(path)) as file,
            pa.csv.open_csv(
                file,
                pa.csv.ReadOptions(block_size=1 << 24),
                convert_options=pa.csv.ConvertOptions(
                    include_columns=["t_dat", "customer_id", "article_id"],
                    column_types={
                        "t_dat": pa.string(),
                        "customer_id": pa.string(),
                        "article_id": pa.string(),
                    },
                ),
            ) as reader,
            tqdm(total=path.stat().st_size, desc="purchases", unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            for batch in reader:
                bar.update(file.tell() - bar.n)
                item = pc.index_in(batch["article_id"], known)
                for column in ("t_dat", "customer_id", "article_id"):
                    empty = pc.equal(batch[column], "")
                    if pc.any(empty).as_py():
                        row = n_read + pc.index(empty, True).as_py() + 1
                        raise InputError(f"{path} has no {column} in row {row}: fill it in or remove the row.")
                if item.null_count:
                    first = pc.index(item.is_null(), True).as_py()
                    raise InputError(
                        f"article {batch['article_id'][first]} is purchased in {path} (row {n_read + first + 1}) but "
                        "has no row in articles.csv: add it, or remove its purchases."
                    )
                n_read += len(item)
                users.append(_numbered(batch["customer_id"], customer_numbers))
                items.append(item.to_numpy().astype(np.int32))
                days.append(_numbered(batch["t_dat"], day_numbers))
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{path} cannot be read ({reason}): correct that row, or get the file again.") from None
    except KeyError as error:
        raise InputError(f"{path} lacks a column ({error.args[0]}): get the competition's file.") from None
    if not n_read:
        raise InputError(f"{path} is empty: it has no purchases.")
    table = pd.DataFrame(
        {
            Columns.USER: pd.Categorical.from_codes(np.concatenate(users), pd.Index(customer_numbers)),
            Columns.ITEM: pd.Categorical.from_codes(np.concatenate(items), pd.Index(articles)),
        }
    )
    day = pd.Categorical.from_codes(np.concatenate(days), pd.Index(day_numbers))
    table[Columns.TIME] = read_times(pd.Series(day), "t_dat", path, forms) // DAY * DAY
    first, last = (None if bound is None else bound * DAY for bound in period)
    if first is not None:
        table = table[table[Columns.TIME] >= first]
    if last is not None:
        table = table[table[Columns.TIME] <= last]
    if table.empty:
        raise InputError(f"there are no purchases in {path} between the days asked for: widen since and until.")
    return table


def _numbered(texts: pa.Array, numbers: dict[str, int]) -> np.ndarray:
    """The number of each text, (n,) int32; `numbers` gives those that it does not hold the next ones."""
    encoded = texts.dictionary_encode()
    codes = [numbers.setdefault(text, len(numbers)) for text in encoded.dictionary.to_pylist()]
    return np.array(codes, dtype=np.int32)[encoded.indices.to_numpy()]

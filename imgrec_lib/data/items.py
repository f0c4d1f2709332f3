"""Item tables as people keep them: one row an item, and whatever columns describe it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from imgrec_lib.data.columns import ITEM_NAMES, find_column, require_column, rows_in_words
from imgrec_lib.data.dataset import Columns
from imgrec_lib.data.formats import read_table
from imgrec_lib.data.ids import how_ids_differ, read_ids
from imgrec_lib.errors import InputError, few, tell

CATEGORY_NAMES = ("category", "categoryname", "producttypename", "producttype", "type")
TEXT_NAMES = ("name", "title", "prodname", "productname")
DESCRIPTION_NAMES = ("description", "detaildesc", "itemdescription", "productdescription", "details", "text")
GROUP_NAMES = ("group", "itemgroup", "itemgroupid", "productcode", "parentasin")
IMAGE_NAMES = (
    "image", "imagepath", "picture", "photo", "file", "filename", "images", "pictures", "photos", "imageurl",
    "imageurls",
)  # fmt: skip

LISTS = (list, tuple, np.ndarray)

UNKNOWN = "unknown"
"""The category of items that have none."""


def read_items(
    path: Path,
    *,
    item_column: str | None = None,
    category_column: str | None = None,
    name_column: str | None = None,
    description_column: str | None = None,
    image_column: str | None = None,
    group_column: str | None = None,
    encoding: str | None = None,
) -> tuple[pd.DataFrame, dict[str, str] | None]:
    """Read an item table.

    Returns:
        Columns `item`, `category`, `name`, `description` and `group` (where the file has them) and the attributes, all
        text; and what the table says of each item's pictures, or None without an image column.

    Raises:
        InputError: see `load_table`.
    """
    raw = read_table(path, encoding)
    # The file of interactions may call the item otherwise.
    item_column = item_column if item_column in raw else None
    item = require_column(raw, path, "item", ITEM_NAMES, item_column)
    category = find_column(raw, path, CATEGORY_NAMES, category_column)
    name = find_column(raw, path, TEXT_NAMES, name_column)
    description = find_column(raw, path, DESCRIPTION_NAMES, description_column)
    group = find_column(raw, path, GROUP_NAMES, group_column)
    image = find_column(raw, path, IMAGE_NAMES, image_column)
    ids = read_ids(raw[item], item, path)
    repeated = ids.duplicated()
    if repeated.any():
        row = int(np.flatnonzero(repeated)[0])
        raise InputError(f"{path} lists item {ids[row]!r} twice (again in row {row + 1}): keep one row an item.")
    table = pd.DataFrame({Columns.ITEM: ids})
    if category is not None:
        table[Columns.CATEGORY] = read_categories(raw[category], category, path)
    if name is not None:
        table[Columns.NAME] = raw[name].astype(object).where(raw[name].notna(), "").astype(str)
    if description is not None:
        table[Columns.DESCRIPTION] = raw[description].astype(object).where(raw[description].notna(), "").astype(str)
    if group is not None:
        table[Columns.GROUP] = require_groups(raw, group, path)
    for column in raw.columns:
        if column not in (item, category, name, description, group, image):
            # Another column may bear the name of one that was chosen, such as `category`.
            attribute = f"{column}_attribute" if column in table else str(column)
            table[attribute] = raw[column].astype(object).where(raw[column].notna(), "").astype(str)
    return table, written_pictures(raw, image, ids)


def written_pictures(raw: pd.DataFrame, column: str | None, ids: pd.Series) -> dict[str, str] | None:
    """What a column of an item table says of each item's pictures, without empty cells; None without a column."""
    if column is None:
        return None
    named = raw[column].map(lambda cell: len(cell) > 0 if isinstance(cell, LISTS) else bool(pd.notna(cell)))
    return {item: _written(cell) for item, cell in zip(ids[named], raw[column][named], strict=True)}


def _written(cell: object) -> str:
    """A cell as text; of lists, as Parquet files have them, as JSON."""
    return json.dumps(list(cell)) if isinstance(cell, LISTS) else str(cell)


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
                f"{known}: {few(ids)} (first in row "
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


def read_categories(values: pd.Series, column: str, path: Path) -> pd.Series:
    """A column of categories as text; those of items that have none are `UNKNOWN`, and a warning counts them."""
    empty = (values.isna() | (values.astype(str).str.strip() == "")).to_numpy()
    if empty.any():
        tell(
            f"{int(empty.sum()):,} of {len(values):,} items in {path} have no {column!r} ({rows_in_words(empty)}): "
            f"their category is {UNKNOWN!r}."
        )
    return values.astype(object).mask(empty, UNKNOWN).astype(str)

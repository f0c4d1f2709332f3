"""Columns of tables that people bring: which is which, what is in them, and how sentences speak of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from imgrec_lib.errors import InputError, tell, unknown_name

# Names by which columns are recognised, in other data sets' words, as `plain_name` gives them.
USER_NAMES = ("user", "userid", "reviewerid", "customerid", "customer", "uid", "visitorid")
ITEM_NAMES = (
    "item", "itemid", "productid", "product", "asin", "articleid", "article", "iid", "sku", "parentasin",
)  # fmt: skip
TIME_NAMES = ("timestamp", "time", "unixreviewtime", "tdat", "date", "datetime")


def plain_name(column: str) -> str:
    """A column's name without case, "_", "-" and blanks."""
    return "".join(c for c in column.lower() if c not in "_- ")


def find_column(table: pd.DataFrame, path: Path, names: Sequence[str], wanted: str | None = None) -> str | None:
    """Name of a column, or None where there is none.

    Args:
        table, path: the table and the file it comes from.
        names: names by which the column is recognised, the most likely first.
        wanted: the name that the user gave, which must then exist.

    Raises:
        InputError: there is no column `wanted`; the sentence names those that there are.
    """
    columns = [str(column) for column in table.columns]
    if wanted is not None:
        if wanted not in columns:
            raise unknown_name(f"column of {path}", wanted, columns)
        return wanted
    plain = {plain_name(column): column for column in reversed(columns)}
    return next((plain[name] for name in names if name in plain), None)


def require_column(table: pd.DataFrame, path: Path, kind: str, names: Sequence[str], wanted: str | None = None) -> str:
    """Name of a column that must be there.

    Args:
        kind: "user" or "item", for the sentence.
        table, path, names, wanted: see `find_column`.

    Raises:
        InputError: there is none; the sentence names the columns that there are.

    Warns when several columns could be meant.
    """
    found = find_column(table, path, names, wanted)
    if found is None:
        raise InputError(
            f"{path} has no {kind} column (found: {', '.join(map(str, table.columns))}): "
            f"rename one to '{names[0]}', or name it with {kind}_column."
        )
    if wanted is None:
        others = [column for column in table.columns if column != found and plain_name(str(column)) in names]
        if others:
            tell(
                f"{path} has several columns that could be the {kind}: {found!r} was taken, and not "
                f"{', '.join(map(repr, others))}; {kind}_column names another."
            )
    return found


def rows_in_words(chosen: np.ndarray) -> str:
    """The rows that a mask chooses, counted from 1, for a sentence: "rows 3, 8, 9 and 12 others"."""
    rows = np.flatnonzero(chosen) + 1
    listed, others = ", ".join(map(str, rows[:3])), len(rows) - 3
    return f"row{'s' if len(rows) > 1 else ''} {listed}" + (f" and {others:,} others" if others > 0 else "")


def distinct_values(values: pd.Series) -> tuple[np.ndarray, pd.Series]:
    """The index of each value among the different ones (-1 for an empty cell), and these."""
    if isinstance(values.array, pd.Categorical):
        return values.array.codes, pd.Series(values.cat.categories)  # the codes themselves: they may not fit the memory
    codes, distinct = pd.factorize(values)
    return codes, pd.Series(distinct)

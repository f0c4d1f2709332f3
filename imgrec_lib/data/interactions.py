"""Interactions as people keep them: who bought which item and when, and which rows are no purchase."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from imgrec_lib.data.columns import (
    ITEM_NAMES,
    TIME_NAMES,
    USER_NAMES,
    distinct_values,
    find_column,
    plain_name,
    require_column,
    rows_in_words,
)
from imgrec_lib.data.dataset import Columns
from imgrec_lib.data.formats import columns_of, read_table
from imgrec_lib.data.ids import read_ids
from imgrec_lib.data.streams import stream_table
from imgrec_lib.data.times import are_clock_times, read_times
from imgrec_lib.errors import InputError, shown, tell, unknown_name

DAY_NAMES = ("date", "day", "tdat")
RATING_NAMES = ("rating", "ratings", "overall", "stars", "star", "starrating", "score", "reviewscore", "reviewrating")
QUANTITY_NAMES = ("quantity", "qty", "units", "amount", "weight", "count")
EVENT_NAMES = (
    "event",
    "eventtype",
    "action",
    "behavior",
    "behaviour",
    "interaction",
    "interactiontype",
    "status",
    "type",
)
NO_PURCHASE = re.compile(
    r"return|refund|cancel|void|charge.?back|dislike|\bstars?\b|view|click|cart|wish", re.IGNORECASE
)
"""Words of rows that may be no purchase."""
VALUES_OF_A_KIND = 100
"""A column of text with more different values does not say of what kind its rows are."""

Repeated = Literal["first", "last", "sum"]


def check_counting(weight_column: str | None, min_weight: float | None, repeated: str) -> None:
    """Refuse options about what counts as an interaction that do not fit each other.

    Raises:
        InputError: a weight without a threshold, or weights to be added up and none named.
    """
    if weight_column is not None and min_weight is None:
        raise InputError("weight_column needs min_weight too: the least weight with which a row is an interaction.")
    if repeated == "sum" and weight_column is None:
        raise InputError("repeated='sum' adds up weights: name their column with weight_column, and say min_weight.")


def read_interactions(
    path: Path,
    *,
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    time_format: str | Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
    weight_column: str | None = None,
    min_weight: float | None = None,
    repeated: Repeated = "first",
    encoding: str | None = None,
    streamed: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Read interactions.

    Args:
        path: the file.
        user_column, item_column, time_column: column names, where they are not recognised.
        time_format: see `check_forms`.
        where: only rows whose columns have these values (one, or a list of them) are interactions.
        weight_column, min_weight: only rows of at least that weight (a rating, a quantity) are interactions.
        repeated: of the rows of one user with one item, in the order of time, the "first" or the "last" one counts, or
            their weights are added up ("sum", by which a return takes back a purchase).
        encoding: see `read_table`.
        streamed: whether to read, block by block, no more than the columns that are needed or may say that a row is no
            purchase: some files do not fit the memory. A folder of Parquet files always is.
        progress: whether to show a progress bar where it is read in a stream.

    Returns:
        Columns `user` and `item` (text; where it was read in a stream, categoricals of text) and, where the file has
        times, `timestamp` (int64 Unix seconds).

    Raises:
        InputError: see `load_table`.

    Warns when rows were left out, and when other columns hint that some of the rows are no purchases.
    """
    check_counting(weight_column, min_weight, repeated)
    streamed = streamed or path.is_dir()
    raw = pd.DataFrame(columns=columns_of(path, encoding)) if streamed else read_table(path, encoding)
    user = require_column(raw, path, "user", USER_NAMES, user_column)
    item = require_column(raw, path, "item", ITEM_NAMES, item_column)
    time = find_column(raw, path, TIME_NAMES, time_column)
    day = None if time is None else find_column(raw, path, DAY_NAMES)
    if streamed:
        asked = [find_column(raw, path, (), name) for name in (weight_column, *(where or ())) if name is not None]
        found = (user, item, time, day, *asked, *telling_columns(raw.columns))
        needed = dict.fromkeys(name for name in found if name is not None)
        raw = stream_table(path, list(needed), time, encoding=encoding, progress=progress)
    table = pd.DataFrame({Columns.USER: read_ids(raw[user], user, path), Columns.ITEM: read_ids(raw[item], item, path)})
    if time is not None:
        times = raw[time]
        if day not in (None, time) and are_clock_times(times):
            times = raw[day].astype(str).where(raw[day].notna()) + " " + times.astype(str)
        table[Columns.TIME] = read_times(times, time, path, time_format)
    others = raw.drop(columns=list({user, item, time, day} - {None, weight_column, *(where or ())}))
    return rows_that_count(
        table, others, path, where=where, weight_column=weight_column, min_weight=min_weight, repeated=repeated
    )


def telling_columns(columns: Iterable[str]) -> list[str]:
    """Those columns whose names say that they hold ratings, quantities, or what was done with an item."""
    return [name for name in columns if plain_name(name) in (*RATING_NAMES, *QUANTITY_NAMES, *EVENT_NAMES)]


def rows_that_count(
    table: pd.DataFrame,
    others: pd.DataFrame,
    path: Path,
    *,
    where: Mapping[str, Any] | None = None,
    weight_column: str | None = None,
    min_weight: float | None = None,
    repeated: Repeated = "first",
) -> pd.DataFrame:
    """Those rows of interactions that count, see `read_interactions`.

    Args:
        table: columns `user`, `item` and perhaps `timestamp`.
        others: what else the file says of the same rows.
        path, where, weight_column, min_weight, repeated: see `read_interactions`.

    Raises:
        InputError: a column or value is not there, a weight is no number, or no row counts.
    """
    if min_weight is not None:
        weight_column = require_column(others, path, "weight", (*RATING_NAMES, *QUANTITY_NAMES), weight_column)
    n_rows = len(table)
    if where:
        chosen = _chosen(others, path, where)
        table, others = table[chosen], others[chosen]
    weights = None if weight_column is None else read_numbers(others[weight_column], weight_column, path)
    _tell_what_may_be_no_purchase(others, path, {weight_column, *(where or {})})
    kept = _counted(table, weights, min_weight, repeated)
    if kept.empty:
        raise InputError(f"no row of {path} is an interaction by where, weight_column and min_weight: change them.")
    if weights is not None or where:
        tell(f"{len(kept):,} of {n_rows:,} rows in {path} count as interactions.")
    return kept.reset_index(drop=True)


def _chosen(raw: pd.DataFrame, path: Path, where: Mapping[str, Any]) -> np.ndarray:
    """(n,) bool: the rows whose columns have the values asked for."""
    chosen = np.ones(len(raw), dtype=bool)
    for wanted, values in where.items():
        column = find_column(raw, path, (), wanted)
        assert column is not None
        codes, distinct = distinct_values(raw[column])
        known = distinct.astype(str)
        listed = [str(value) for value in (values if isinstance(values, list | tuple) else [values])]
        for value in listed:
            if value not in set(known):
                raise unknown_name(f"value of {column!r} in {path}", value, known.head(VALUES_OF_A_KIND))
        chosen &= np.append(known.isin(listed).to_numpy(), False)[codes]
    return chosen


def read_numbers(values: pd.Series, column: str, path: Path) -> np.ndarray:
    """A column of ratings or quantities: (n,) float64.

    Args:
        values: (n,) numbers or texts, or a categorical of them.
        column, path: what the sentence calls the column, and the file that it comes from.

    Raises:
        InputError: one is no number; the sentence names the rows.
    """
    codes, distinct = distinct_values(values)
    numbers = np.append(pd.to_numeric(distinct, errors="coerce").to_numpy(np.float64, na_value=np.nan), np.nan)[codes]
    bad = ~np.isfinite(numbers)
    if bad.any():
        raise InputError(
            f"{path} has {shown(values.tolist()[int(bad.argmax())])} as {column!r} in {rows_in_words(bad)}: a rating "
            "or a quantity is a number; correct it, or remove the row."
        )
    return numbers


def _counted(
    table: pd.DataFrame, weights: np.ndarray | None, min_weight: float | None, repeated: Repeated
) -> pd.DataFrame:
    """One row for each pair of user and item that counts, in the order of the file; all rows where nothing is asked."""
    if weights is None and repeated == "first":
        return table
    pair = [Columns.USER, Columns.ITEM]
    weighed = table.assign(weight=1.0 if weights is None else weights)
    if Columns.TIME in table:
        weighed = weighed.sort_values(Columns.TIME, kind="stable")
    if repeated == "sum":
        weighed["weight"] = weighed.groupby(pair, observed=True)["weight"].transform("sum")
    weighed = weighed.drop_duplicates(pair, keep="last" if repeated == "last" else "first")
    if min_weight is not None:
        weighed = weighed[weighed["weight"] >= min_weight]
    return weighed.drop(columns="weight").sort_index()


def _tell_what_may_be_no_purchase(raw: pd.DataFrame, path: Path, used: set[str | None]) -> None:
    """Warn of columns by which some of the rows look like bad ratings, returns, or something else than purchases."""
    for column in raw.columns:
        if column in used:
            continue
        codes, distinct = distinct_values(raw[column])
        numbers = pd.to_numeric(distinct.astype(str), errors="coerce").to_numpy(np.float64)
        counts = np.bincount(codes[codes >= 0], minlength=len(distinct))
        if len(distinct) and np.isfinite(numbers).all():
            hint = _hint_of_numbers(str(column), numbers, counts)
        else:
            hint = _hint_of_words(str(column), distinct.astype(str), counts)
        if hint:
            tell(f"every row of {path} was counted as a purchase, whatever {hint}")


def _hint_of_numbers(column: str, numbers: np.ndarray, counts: np.ndarray) -> str:
    low, high = numbers.min(), numbers.max()
    if plain_name(column) in RATING_NAMES and low >= 0:
        poor = counts[numbers < (low + high) / 2].sum()
        return (
            f"its {column!r} (from {low:g} to {high:g}, {poor:,} rows below the middle): to count only good ones, say "
            f"weight_column={column!r} and min_weight={np.ceil((low + high) / 2):g}."
            if low < high
            else ""
        )
    if low < 0 or (low == 0 and plain_name(column) in QUANTITY_NAMES):
        return (
            f"its {column!r} ({counts[numbers <= 0].sum():,} rows have 0 or less, as returns have): to take returns "
            f"back, say weight_column={column!r}, min_weight=1 and repeated='sum'."
        )
    return ""


def _hint_of_words(column: str, words: pd.Series, counts: np.ndarray) -> str:
    if not 2 <= len(words) <= VALUES_OF_A_KIND:
        return ""
    kinds = plain_name(column) in EVENT_NAMES or NO_PURCHASE.search(column)
    if not kinds and not words.str.contains(NO_PURCHASE).any():
        return ""
    listed = ", ".join(f"{words[k]!r} in {counts[k]:,} rows" for k in np.argsort(-counts, kind="stable")[:5])
    return (
        f"its {column!r} ({listed}{', ...' if len(words) > 5 else ''}): to count only some, say "
        f"where={{{column!r}: [...]}} with their values."
    )

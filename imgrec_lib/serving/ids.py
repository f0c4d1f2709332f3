"""Ids as people give them: text, whole numbers, a column of a table, a file; never a position."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from imgrec_lib.data.columns import ITEM_NAMES, USER_NAMES, find_column
from imgrec_lib.data.formats import read_table
from imgrec_lib.data.ids import read_ids as read_id_column
from imgrec_lib.errors import InputError, shown, unknown_name
from imgrec_lib.files import replacing


def as_text(value: Any, kind: str = "id") -> str:
    """An id as text: a whole number is written out, also where a table made a decimal one of it.

    Raises:
        InputError: it is missing, or neither text nor a whole number.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    raise InputError(f"{shown(value)} is no {kind}: give text or a whole number.")


def positions(kind: str, known: pd.Index, ids: Iterable[Any]) -> np.ndarray:
    """Where ids stand among the known ones.

    Args:
        kind: what they are the ids of ("user", "item"), for the sentence.
        known: (n,) str, each once.
        ids: text, or whole numbers whose digits are the id.

    Returns:
        (number of ids,) int64 indices into `known`.

    Raises:
        InputError: an id that is not known (with a suggestion where there are few).
    """
    wanted = [as_text(each, f"{kind} id") for each in ([ids] if isinstance(ids, str) else ids)]
    found = np.array([known.get_loc(each) if each in known else -1 for each in wanted], np.int64)
    if (found < 0).any():
        missing = wanted[int(np.flatnonzero(found < 0)[0])]
        number = int((found < 0).sum())
        if len(known) <= 20:
            raise unknown_name(f"{kind} id", missing, known.tolist())
        raise InputError(
            f"there is no {kind} {missing!r}{f' (nor {number - 1:,} others)' if number > 1 else ''} in this dataset: "
            + (
                "give what a new customer bought as a basket, or check the id."
                if kind == "user"
                else "check the id against the item table."
            )
        )
    return found


def read_ids(text: str) -> list[str]:
    """Ids of an option: a file with one a line (a header line 'user' or 'item' is passed over), or commas between them.

    Raises:
        InputError: a file without any id.
    """
    path = Path(text).expanduser()
    if not path.is_file():
        return [part.strip() for part in text.split(",") if part.strip()]
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    ids = [line for line in lines if line and line.lower() not in ("user", "item")]
    if not ids:
        raise InputError(f"{path} holds no id: write one a line.")
    return ids


@runtime_checkable
class Tabular(Protocol):
    """A table of another library, such as polars or Arrow."""

    def to_pandas(self) -> pd.DataFrame: ...


Table = pd.DataFrame | Path | str | Tabular


def pairs_of(table: Any) -> pd.DataFrame:
    """A table of users and items, ids as text.

    Args:
        table: a DataFrame (of pandas, or anything that has `to_pandas`, as tables of polars and Arrow have), or a file
            as `data.formats.read_table` reads it. The columns of users and items may also be called as in other data
            sets, such as `customer_id` and `article_id`.

    Returns:
        The table with the columns `user` and `item`; its other columns are as they were.

    Raises:
        InputError: the file is missing or cannot be read, there is no column of users or items, or an id is missing.
    """
    name, frame = Path("the table"), table
    if isinstance(table, str | Path):
        name = Path(table).expanduser()
        frame = read_table(name)
    elif hasattr(table, "to_pandas"):
        frame = table.to_pandas()
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"a table is a DataFrame or a file, not {type(table).__name__}.")
    found = {"user": find_column(frame, name, USER_NAMES), "item": find_column(frame, name, ITEM_NAMES)}
    for kind, column in found.items():
        if column is None:
            raise InputError(f"{name} has no column {kind!r}, only {', '.join(map(str, frame.columns))}: name it so.")
    pairs = frame.rename(columns={column: kind for kind, column in found.items()}).reset_index(drop=True)
    return pairs.assign(**{kind: read_id_column(pairs[kind], str(column), name) for kind, column in found.items()})


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, Parquet or JSON lines, by the file's ending, whole or not at all.

    Raises:
        InputError: another ending, or the file cannot be written.
    """
    writers = {
        ".csv": lambda to: table.to_csv(to, index=False),
        ".parquet": lambda to: table.to_parquet(to, index=False),
        ".jsonl": lambda to: table.to_json(to, orient="records", lines=True, force_ascii=False),
    }
    if path.suffix.lower() not in writers:
        raise InputError(f"{path} is neither .csv, .parquet nor .jsonl: choose one of these endings.")
    with replacing(path) as temporary:
        writers[path.suffix.lower()](temporary)

"""Ids as people give them: text, whole numbers, a column of a table, a file; never a position."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imgrec_lib.errors import InputError, shown, unknown_name


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
    found = known.get_indexer(pd.Index(wanted, dtype=str))
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
    return found.astype(np.int64)


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


def pairs_of(table: pd.DataFrame | Path | str, columns: tuple[str, ...] = ("user", "item")) -> pd.DataFrame:
    """A table with the given columns, of a DataFrame or of a file, ids as text.

    Args:
        table: a DataFrame, or a CSV, Parquet or JSON-lines file.
        columns: columns that must be there.

    Raises:
        InputError: the file is missing or cannot be read, lacks a column, or an id is missing.
    """
    name = "the table"
    if not isinstance(table, pd.DataFrame):
        name, table = str(table), read_table(Path(table).expanduser())
    for column in columns:
        if column not in table:
            raise InputError(f"{name} has no column {column!r}, only {', '.join(map(str, table.columns))}: name it so.")
    table = table.copy()
    for column in ("user", "item"):
        if column in columns:
            empty = table[column].isna()
            if empty.any():
                raise InputError(
                    f"{name} has no {column} in row {int(np.flatnonzero(empty)[0]) + 1}: fill it in or drop the row."
                )
            table[column] = [as_text(value, f"{column} id") for value in table[column]]
    return table


def read_table(path: Path) -> pd.DataFrame:
    """A CSV, Parquet or JSON-lines file, by its ending; ids stay text.

    Raises:
        InputError: it is missing, cannot be read, or has another ending.
    """
    readers = {
        ".csv": lambda: pd.read_csv(path, dtype={"user": str, "item": str}, keep_default_na=False, na_values=[""]),
        ".parquet": lambda: pd.read_parquet(path),
        ".jsonl": lambda: pd.read_json(path, lines=True, dtype={"user": str, "item": str}, convert_dates=False),
    }
    if path.suffix.lower() not in readers:
        raise InputError(f"{path} is neither .csv, .parquet nor .jsonl: choose one of these.")
    try:
        return readers[path.suffix.lower()]()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): check the path.") from None
    except Exception as error:  # the engines of pandas raise many kinds of exception on damaged files
        raise InputError(f"{path} cannot be read ({error}): check that it is what its ending says.") from None


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, Parquet or JSON lines, by the file's ending, whole or not at all.

    Raises:
        InputError: another ending, or the file cannot be written.
    """
    from imgrec_lib.files import replacing

    writers = {
        ".csv": lambda to: table.to_csv(to, index=False),
        ".parquet": lambda to: table.to_parquet(to, index=False),
        ".jsonl": lambda to: table.to_json(to, orient="records", lines=True, force_ascii=False),
    }
    if path.suffix.lower() not in writers:
        raise InputError(f"{path} is neither .csv, .parquet nor .jsonl: choose one of these endings.")
    with replacing(path) as temporary:
        writers[path.suffix.lower()](temporary)

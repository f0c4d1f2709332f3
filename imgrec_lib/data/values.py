"""What the columns of an item table say, as numbers: which value an item has, or how much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

CURRENCY = r"(?:[A-Z]{2,3}|[$€£¥])?"
NUMBER = rf"\s*{CURRENCY}\s*([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*{CURRENCY}\s*"


def value_codes(columns: Sequence[pd.Series | np.ndarray]) -> np.ndarray:
    """Each item's values, numbered over all columns: (n_items, columns) int64.

    The values of a column are numbered in their order, and those of the next column from there on.
    """
    numbered = [pd.Categorical(column).codes.astype(np.int64) for column in columns]
    sizes = [int(codes.max(initial=-1)) + 1 for codes in numbered]
    return np.stack(numbered, 1) + np.cumsum([0, *sizes[:-1]])


def numbers_of(column: pd.Series) -> np.ndarray | None:
    """The numbers in a column of text such as "19.99" or "$1,299": (n,) float64, NaN where a cell is empty.

    None where a cell holds anything else, or all are empty.
    """
    texts = column.fillna("").astype(str).str.strip()
    empty = (texts == "").to_numpy()
    found = texts.str.replace(r",(?=\d{3}(?:\D|$))", "", regex=True).str.extract(f"^{NUMBER}$")[0]
    numbers = pd.to_numeric(found, errors="coerce").to_numpy(np.float64)
    return None if empty.all() or not np.isfinite(numbers[~empty]).all() else np.where(empty, np.nan, numbers)

"""What each item's attributes are, and how well they are told from pictures."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from annotated_types import Ge, Le

from imgrec_lib.data.dataset import Columns, TrainingData
from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError, unknown_name

ITEMS_A_VALUE = 5
"""A column whose values recur less often than this on average names or describes items one by one: it is an id or free
text, not an attribute."""


@dataclass(frozen=True, eq=False)
class AttributeLabels:
    """What the item table says of each item's attributes.

    Attributes:
        names: the attributes, in the order of the table's columns.
        values: the values of each, in alphabetical order.
        codes: (n_items, n_attributes) int64 indices into `values`, -1 where the table says nothing.
    """

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sizes(self) -> list[int]:
        """Number of values of each attribute."""
        return [len(values) for values in self.values]


def attribute_labels(data: TrainingData, columns: Sequence[str] = ()) -> AttributeLabels:
    """Read the attributes of a catalogue off its item table.

    Args:
        data: gives the attribute columns and, where it has categories, one more that is called "category".
        columns: which columns to take; empty: all that have at least two values, each on average for at least
            `ITEMS_A_VALUE` items, and so are neither ids nor free text.

    Returns:
        The labels. Cells that are empty or NaN are missing.

    Raises:
        InputError: a column that is not there or has fewer than two values, or no column that is an attribute.
    """
    table = pd.DataFrame(index=range(data.n_items)) if data.attributes is None else data.attributes
    columns_of = {str(name): table[name] for name in table.columns}
    if data.categories is not None:
        names = data.category_names or tuple(f"category {i}" for i in range(data.n_categories))
        columns_of = {Columns.CATEGORY: pd.Series([names[i] for i in data.categories])} | columns_of
    read = {}
    for name in columns or columns_of:
        if name not in columns_of:
            raise unknown_name("attribute column", name, columns_of)
        text = columns_of[name].astype("string").fillna("").str.strip()
        found = pd.Categorical(text.mask(text == ""))
        labelled = int((found.codes >= 0).sum())
        if columns and len(found.categories) < 2:
            raise InputError(f"attribute column {name!r} has fewer than two different values: choose another column.")
        if columns or 2 <= len(found.categories) <= labelled / ITEMS_A_VALUE:
            read[name] = (tuple(map(str, found.categories)), found.codes.astype(np.int64))
    if not read:
        raise InputError(
            f"no column of the item table is an attribute (found: {', '.join(columns_of) or 'none'}): an attribute has "
            f"at least two values, each for {ITEMS_A_VALUE} items on average; name columns to take them all the same."
        )
    return AttributeLabels(
        tuple(read), tuple(values for values, _ in read.values()), np.stack([codes for _, codes in read.values()], 1)
    )


def held_out_items(images: ImageStore, share: Annotated[float, Ge(0), Le(1)]) -> np.ndarray:
    """Which items are kept from the heads, to measure their accuracy: (n_items,) bool.

    A picture's own bytes decide (CRC-32 below the share of its range), so that the same photograph is never on both
    sides, and the order of the items does not matter.
    """
    digests = np.array([zlib.crc32(picture.tobytes()) for picture in images.pixels], dtype=np.float64)
    return digests < share * 2.0**32


def attribute_accuracy(labels: AttributeLabels, predicted: np.ndarray, held_out: np.ndarray) -> pd.DataFrame:
    """How often the heads are right about items they never saw, beside always naming the commonest value.

    Args:
        labels: what the item table says.
        predicted: (n_items, n_attributes) int64, `Regions.predicted`.
        held_out: (n_items,) bool; the commonest value is counted among the others.

    Returns:
        One row an attribute: `values`, `items` (held out and labelled), `accuracy` and `majority` (the baseline); NaN
        where no held-out item has a label.
    """
    rows = {}
    for a, name in enumerate(labels.names):
        known = labels.codes[:, a] >= 0
        asked, taught = known & held_out, known & ~held_out
        truth = labels.codes[asked, a]
        commonest = np.bincount(labels.codes[taught, a], minlength=labels.sizes[a]).argmax()
        rows[name] = {
            "values": labels.sizes[a],
            "items": int(asked.sum()),
            "accuracy": float((predicted[asked, a] == truth).mean()) if len(truth) else float("nan"),
            "majority": float((truth == commonest).mean()) if len(truth) else float("nan"),
        }
    return pd.DataFrame(rows).T.astype({"values": int, "items": int}).rename_axis("attribute")

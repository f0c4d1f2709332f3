"""Ask the catalogue: items by any word of the item table, and users by a part of their id."""

from __future__ import annotations

import re
import sqlite3
import threading
from difflib import get_close_matches
from functools import lru_cache

import numpy as np
import pandas as pd

from imgrec_lib.data.dataset import Columns, Dataset
from imgrec_lib.options import Count

FACET_VALUES = 300
"""A column with more different values is no choice in a list; its words are searched all the same."""


class Index:
    """The words of a catalogue, in SQLite's full-text index; the better an item fits, the earlier it comes.

    Args:
        table: an item table, of which every column is searched, ids included.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self._lock = threading.Lock()  # a page asks from several threads
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute("CREATE VIRTUAL TABLE words USING fts5(named, told, prefix='2 3')")
        self._database.execute("CREATE VIRTUAL TABLE vocabulary USING fts5vocab(words, row)")
        texts = table.fillna("").astype(str)
        named = [column for column in (Columns.ITEM, Columns.NAME) if column in texts]
        told = [column for column in texts if column not in named]
        columns = ([" ".join(row) for row in texts[each].to_numpy().tolist()] for each in (named, told))
        rows = zip(range(len(texts)), *columns, strict=True)
        with self._database:
            self._database.executemany("INSERT INTO words(rowid, named, told) VALUES (?, ?, ?)", rows)
        self._ids = texts[Columns.ITEM].str.lower().to_numpy().astype(str)

    def items(self, text: str, admitted: np.ndarray | None = None) -> np.ndarray:
        """The items that fit, best first.

        An item fits that has all the words, each as the beginning of one of its own, or that has the text inside its
        id; where no item does, one that has some of the words.

        Args:
            text: words, in any order.
            admitted: (n_items,) bool, the items that are looked through; None: all.

        Returns:
            (n,) int64 item indices.
        """
        words = [f'"{word}"*' for word in _words(text)]
        whole = text.strip().lower()
        inside = np.flatnonzero(np.char.find(self._ids, whole) >= 0).tolist() if whole else []
        found = [*(self._matching(" AND ".join(words)) if words else []), *inside]
        if words and not found:
            found = self._matching(" OR ".join(words))
        hits = np.array(list(dict.fromkeys(found)), dtype=np.int64)
        return hits if admitted is None else hits[admitted[hits]]

    def like(self, text: str) -> list[str]:
        """Words of the catalogue that are spelled almost as those of a text that it does not have."""
        with self._lock:
            known = [word for (word,) in self._database.execute("SELECT term FROM vocabulary")]
        strange = [word for word in _words(text) if not any(each.startswith(word) for each in known)]
        return list(dict.fromkeys(near for word in strange for near in get_close_matches(word, known, 2, 0.7)))

    def _matching(self, query: str) -> list[int]:
        # A word in an id or a name counts more than one in a description.
        order = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, 5.0, 1.0), rowid"
        with self._lock:
            return [row for (row,) in self._database.execute(order, (query,))]


def _words(text: str) -> list[str]:
    """The words of a text, without what the query language of the index would read as its own."""
    return [word for word in re.split(r"[\W_]+", text.lower()) if word]


@lru_cache(4)
def index_of(dataset: Dataset) -> Index:
    """The index of a catalogue, made when first asked for."""
    return Index(dataset.items)


def find_users(dataset: Dataset, text: str, most: Count) -> np.ndarray:
    """(n,) int64: users in whose id a text stands, those whose id begins with it first; at most so many."""
    ids = np.char.lower(dataset.user_ids.astype(str))
    at = np.char.find(ids, text.strip().lower()) if text.strip() else np.full(len(ids), -1)
    hits = np.flatnonzero(at >= 0)
    return hits[np.argsort(at[hits] > 0, kind="stable")][:most]


@lru_cache(4)
def facets(dataset: Dataset) -> dict[str, pd.Series]:
    """The columns of the item table by which one can choose: their values, and how many items have each.

    A column whose values are nearly all different (a description), or all the same, is no choice.

    Returns:
        By column, the category first: counts, indexed by value, the most frequent first.
    """
    table = dataset.items.drop(columns=[Columns.ITEM, Columns.NAME, Columns.GROUP], errors="ignore")
    found = {}
    for column in sorted(table.columns, key=lambda column: column != Columns.CATEGORY):
        counts = table[column].dropna().astype(str).value_counts()
        counts = counts[counts.index.str.strip() != ""]
        if 2 <= len(counts) <= min(FACET_VALUES, max(2, len(table) // 2)):
            found[str(column)] = counts
    return found

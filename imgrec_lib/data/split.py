"""Leave-two-out: of each user's items one is for testing, one for validation, the rest for training."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from imgrec_lib.data.dataset import Columns, Dataset, HeldOut, Interactions
from imgrec_lib.errors import InputError, unknown_name

KINDS = ("random", "time")
PAIR = [Columns.USER, Columns.ITEM]


def first_occurrences(table: pd.DataFrame) -> pd.DataFrame:
    """Each (user, item) pair once: the earliest where there are timestamps, else the first row.

    Args:
        table: columns `user`, `item` and perhaps `timestamp`.
    """
    if Columns.TIME in table:
        table = table.sort_values(Columns.TIME, kind="stable")
    return table.drop_duplicates(PAIR)


def filter_minimum(table: pd.DataFrame, min_interactions: int | None = 5) -> pd.DataFrame:
    """Drop repeated pairs, then the users with fewer than `min_interactions` different items.

    Args:
        table: columns `user`, `item` and perhaps `timestamp`; ids or indices.
        min_interactions: at least 3, so that one item is left for training; None drops no user.

    Raises:
        InputError: `min_interactions` is below 3, or no user is left.
    """
    table = first_occurrences(table)
    if min_interactions is None:
        return table
    if min_interactions < 3:
        raise InputError(
            f"min_interactions must be at least 3 (one item each for training, validation and test), "
            f"not {min_interactions}."
        )
    codes, _ = pd.factorize(table[Columns.USER])
    counts = np.bincount(codes)
    kept = table[counts[codes] >= min_interactions]
    if kept.empty:
        most = f"the most is {counts.max()}" if len(counts) else "there are no interactions"
        raise InputError(
            f"the split is empty: no user has {min_interactions} different items ({most}); "
            "lower min_interactions or check the interactions."
        )
    return kept


def leave_two_out(
    table: pd.DataFrame,
    n_users: int,
    n_items: int,
    kind: str = "random",
    seed: int = 0,
    user_ids: np.ndarray | None = None,
) -> tuple[Interactions, HeldOut, HeldOut]:
    """Hold out one test and one validation item of every user.

    `random` draws two different items uniformly, as the VBPR and DVBPR authors do. `time` takes the latest
    for testing and the one before it for validation; items of the same time are put in a random order. The
    draws come from NumPy's PCG64 bit stream: the same on every platform and independent of the order of rows.

    Args:
        table: integer columns `user` and `item` (indices) and perhaps `timestamp` (Unix seconds); of a
            repeated pair the first occurrence counts.
        n_users, n_items: sizes of the two index ranges.
        kind: "random" or "time".
        seed: seeds the draws.
        user_ids: (n_users,) the users' ids, for messages.

    Returns:
        Training interactions, validation items, test items.

    Raises:
        InputError: unknown kind, "time" without timestamps, no interactions, or a user with fewer than 3
            items.
    """
    if kind not in KINDS:
        raise unknown_name("split", kind, KINDS)
    if kind == "time" and Columns.TIME not in table:
        raise InputError("the split by time needs timestamps: name the time column, or split='random'.")
    if table.empty:
        raise InputError("the split is empty: there are no interactions.")
    table = first_occurrences(table).sort_values(PAIR)
    users, items = table[Columns.USER].to_numpy(np.int64), table[Columns.ITEM].to_numpy(np.int64)
    times = table[Columns.TIME].to_numpy(np.int64) if Columns.TIME in table else None
    counts = np.bincount(users, minlength=n_users)
    if counts.min() < 3:
        poor = int(counts.argmin())
        raise InputError(
            f"user {poor if user_ids is None else user_ids[poor]} has {counts[poor]} different items, too few to "
            "hold out two and train on one: drop users with fewer than 3 items (min_interactions)."
        )
    draws = np.random.PCG64(seed).random_raw(len(users))
    order = np.lexsort((draws, users) if kind == "random" or times is None else (draws, times, users))
    ends = np.cumsum(counts)
    test, validation = order[ends - 1], order[ends - 2]
    rest = np.ones(len(users), dtype=bool)
    rest[test] = rest[validation] = False
    train = Interactions.from_pairs(users[rest], items[rest], n_users, n_items, None if times is None else times[rest])
    return (
        train,
        HeldOut(items[validation], None if times is None else times[validation]),
        HeldOut(items[test], None if times is None else times[test]),
    )


def given_split(
    train: pd.DataFrame,
    validation: pd.DataFrame,
    test: pd.DataFrame,
    n_users: int,
    n_items: int,
    user_ids: np.ndarray | None = None,
) -> tuple[Interactions, HeldOut, HeldOut]:
    """A split that came with the data.

    Repeated training pairs count once. A pair that is both held out and in training is taken out of training
    (and one that is both test and validation, out of validation), with a warning: no model may have seen it.

    Args:
        train, validation, test: as `table` in `leave_two_out`; the latter two with at most one row a user.
        n_users, n_items: sizes of the two index ranges.
        user_ids: (n_users,) the users' ids, for messages.

    Returns:
        Training interactions, validation items, test items.

    Raises:
        InputError: a part is empty, or a user has several held-out items.
    """
    parts = {"training": train, "validation": validation, "test": test}
    for name, part in parts.items():
        if part.empty:
            raise InputError(f"the split is empty: there are no {name} interactions.")
    times = all(Columns.TIME in part for part in parts.values())
    held_out = []
    for name in ("validation", "test"):
        part = parts[name]
        users = part[Columns.USER].to_numpy(np.int64)
        counts = np.bincount(users, minlength=n_users)
        if counts.max() > 1:
            many = int(counts.argmax())
            raise InputError(
                f"user {many if user_ids is None else user_ids[many]} has {counts[many]} {name} items; "
                "the split holds out one item a user."
            )
        items = np.full(n_users, -1, dtype=np.int64)
        items[users] = part[Columns.ITEM].to_numpy(np.int64)
        when = np.zeros(n_users, dtype=np.int64) if times else None
        if when is not None:
            when[users] = part[Columns.TIME].to_numpy(np.int64)
        held_out.append(HeldOut(items, when))
    validated, tested = held_out
    twice = (validated.items >= 0) & (validated.items == tested.items)
    validated.items[twice] = -1

    unique = first_occurrences(train)
    users, items = unique[Columns.USER].to_numpy(np.int64), unique[Columns.ITEM].to_numpy(np.int64)
    leaked = (validated.items[users] == items) | (tested.items[users] == items)
    if leaked.any() or twice.any():
        warnings.warn(
            f"{leaked.sum()} held-out pairs were also in training, and {twice.sum()} validation items were also "
            "the user's test item: they are only held out.",
            stacklevel=2,
        )
    kept = unique[~leaked]
    interactions = Interactions.from_pairs(
        users[~leaked], items[~leaked], n_users, n_items, kept[Columns.TIME].to_numpy() if times else None
    )
    return interactions, validated, tested


def index_ids(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Number ids in their alphabetical order.

    Args:
        values: ids, with repetitions.

    Returns:
        (n,) int64 index of each value, and the distinct ids in order (object array of str).
    """
    codes, distinct = pd.factorize(values)
    ids = np.array([str(value) for value in distinct], dtype=object)
    order = np.argsort(ids, kind="stable")
    rank = np.empty(len(ids), dtype=np.int64)
    rank[order] = np.arange(len(ids))
    return rank[codes], ids[order]


def split_dataset(
    name: str,
    table: pd.DataFrame,
    items: pd.DataFrame,
    *,
    min_interactions: int | None = 5,
    keep_unused_items: bool = False,
    split: str = "random",
    seed: int = 0,
) -> Dataset:
    """Filter, number and split interactions into a dataset without images.

    Args:
        name: the dataset's name.
        table: columns `user` and `item` (ids) and perhaps `timestamp` (Unix seconds); every item has a row in
            `items`.
        items: the item table, one row an item, with the column `item`.
        min_interactions: users with fewer different items are dropped; None drops none.
        keep_unused_items: whether items that nobody interacted with stay in the catalogue.
        split: "random" or "time".
        seed: seeds the split.

    Raises:
        InputError: see `filter_minimum` and `leave_two_out`.
    """
    table = filter_minimum(table, min_interactions)
    users, user_ids = index_ids(table[Columns.USER])
    items = items.sort_values(Columns.ITEM)
    if not keep_unused_items:
        items = items[items[Columns.ITEM].isin(table[Columns.ITEM].unique())]
    items = items.reset_index(drop=True)
    indexed = pd.DataFrame(
        {Columns.USER: users, Columns.ITEM: pd.Index(items[Columns.ITEM]).get_indexer(table[Columns.ITEM])}
    )
    if Columns.TIME in table:
        indexed[Columns.TIME] = table[Columns.TIME].to_numpy(np.int64)
    train, validation, test = leave_two_out(indexed, len(user_ids), len(items), split, seed, user_ids)
    record = {"kind": split, "seed": seed, "min_interactions": min_interactions}
    return Dataset(name, user_ids, items, train, validation, test, split=record)


def dataset_table(dataset: Dataset) -> pd.DataFrame:
    """Table 1 of the ImgRec paper (users, items, interactions), and what else tells how hard the data is.

    Density is interactions / (users x items), held-out ones included; a cold item has no training
    interaction.

    Args:
        dataset: any dataset.

    Returns:
        One row; shares are fractions of 1.
    """
    held_out = np.concatenate([dataset.validation.items, dataset.test.items])
    held_out = held_out[held_out >= 0]
    interactions = len(dataset.train) + len(held_out)
    cold = dataset.train.popularity == 0
    images = dataset.images
    return pd.DataFrame(
        {
            "dataset": [dataset.name],
            "users": [dataset.n_users],
            "items": [dataset.n_items],
            "interactions": [interactions],
            "density": [interactions / (dataset.n_users * dataset.n_items)],
            "training interactions per user": [len(dataset.train) / dataset.n_users],
            "training interactions per item": [len(dataset.train) / dataset.n_items],
            "cold items": [int(cold.sum())],
            "cold items, share": [float(cold.mean())],
            "held-out interactions on cold items, share": [float(cold[held_out].mean())],
            "items without a picture": [dataset.n_items if images is None else int((~images.present).sum())],
        }
    )

"""What is for training, for validation and for testing: some of each user's items, what came with the data, or days."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from imgrec_lib.data.blocks import BLOCK, Pairs, blocks_of_users, counts_of, joined, renumbered
from imgrec_lib.data.columns import distinct_values
from imgrec_lib.data.dataset import Columns, Dataset, HeldOut, Interactions
from imgrec_lib.errors import InputError, tell, unknown_name

KINDS = ("random", "time", "date")
UNTIMED = "the split by {} needs timestamps: name their column with time_column, or say split='random'."
PAIR = [Columns.USER, Columns.ITEM]


def first_occurrences(table: pd.DataFrame) -> pd.DataFrame:
    """Each (user, item) pair once: the earliest where there are timestamps, else the first row.

    Args:
        table: columns `user`, `item` and perhaps `timestamp`.
    """
    if Columns.TIME in table:
        table = table.sort_values(Columns.TIME, kind="stable")
    return table.drop_duplicates(PAIR)


def leave_two_out(
    table: pd.DataFrame,
    n_users: int,
    n_items: int,
    kind: str = "random",
    seed: int = 0,
    user_ids: np.ndarray | None = None,
    held_out: float = 1,
    validate: bool = True,
) -> tuple[Interactions, HeldOut, HeldOut]:
    """Hold out one test and one validation item of every user, or several of each.

    `random` draws different items uniformly, as the VBPR and DVBPR authors draw two. `time` takes the latest
    for testing and those before them for validation; items of the same time are put in a random order. The
    draws come from NumPy's PCG64 bit stream: the same on every platform and independent of the order of rows.

    Args:
        table: integer columns `user` and `item` (indices) and perhaps `timestamp` (Unix seconds); of a
            repeated pair the first occurrence counts.
        n_users, n_items: sizes of the two index ranges.
        kind: "random" or "time".
        seed: seeds the draws.
        user_ids: (n_users,) the users' ids, for messages.
        held_out: how many items of every user are for testing, and as many for validation: a whole number, or below 1
            a share of the user's different items, rounded down, but at least one.
        validate: whether there are validation items.

    Returns:
        Training interactions, validation items, test items.

    Raises:
        InputError: unknown kind, "time" without timestamps, no interactions, nothing to hold out, or a user of whose
            items none would be left for training.
    """
    if kind not in ("random", "time"):
        raise unknown_name("split", kind, KINDS)
    if kind == "time" and Columns.TIME not in table:
        raise InputError(UNTIMED.format(kind))
    if table.empty:
        raise InputError("the split is empty: there are no interactions.")
    _check_size(held_out)
    users, items = (table[column].to_numpy(np.int64) for column in PAIR)
    pairs = Pairs.of(users, items, table[Columns.TIME].to_numpy(np.int64) if Columns.TIME in table else None)
    parts = _left_out(pairs, n_users, kind, np.random.PCG64(seed), user_ids, held_out, validate)
    train, validation, test = (pairs.where(part).interactions(n_users, n_items) for part in parts)
    return train, HeldOut(validation), HeldOut(test)


def _left_out(
    pairs: Pairs,
    n_users: int,
    kind: str,
    stream: np.random.PCG64,
    user_ids: np.ndarray | None,
    held_out: float,
    validated_too: bool,
) -> tuple[np.ndarray, ...]:
    """Three (n,) bool: which pairs are for training, validation and testing; draws come from `stream` where it is."""
    users, times = pairs.users, pairs.times
    counts = np.bincount(users, minlength=n_users)
    share = np.floor(held_out * counts + 1e-9)  # 0.29 * 100 is a little less than 29
    tested = (np.maximum(1, share) if held_out < 1 else np.full(n_users, held_out)).astype(np.int64)
    validated = tested if validated_too else np.zeros_like(tested)
    left = counts - tested - validated
    if left.min(initial=1) < 1:
        poor = int(left.argmin())
        least = _number(int(tested[poor] + validated[poor]))
        raise InputError(
            f"user {poor if user_ids is None else user_ids[poor]} has {counts[poor]} different items, too few to "
            f"hold out {least} and train on one: drop users with fewer than {tested[poor] + validated[poor] + 1} items "
            "(min_interactions)" + (", or lower held_out." if held_out != 1 else ".")
        )
    draws = stream.random_raw(len(users))
    order = np.lexsort((draws, users) if kind == "random" or times is None else (draws, times, users))
    # Places in a user's order, counted from its end: 0 is the last.
    place = np.empty(len(users), np.int64)
    place[order] = (np.cumsum(counts) - 1)[users[order]] - np.arange(len(users))
    return (
        place >= (tested + validated)[users],
        (place >= tested[users]) & (place < (tested + validated)[users]),
        place < tested[users],
    )


def _by_date(times: np.ndarray, validate_from: int | None, test_from: int) -> tuple[np.ndarray, ...]:
    """Three (n,) bool: which interactions of these times are for training, validation and testing."""
    train_until = test_from if validate_from is None else validate_from
    return times < train_until, (times >= train_until) & (times < test_from), times >= test_from


def _check_parts(parts: Sequence[Interactions], validate_from: int | None, test_from: int) -> None:
    """Refuse days by which a part of the split is empty."""
    times = [
        each for part in parts if part.times is not None and len(part) for each in (part.times.min(), part.times.max())
    ]
    for name, part in zip(("training", "validation", "test"), parts, strict=True):
        if not len(part) and (name != "validation" or validate_from is not None):
            train_until = test_from if validate_from is None else validate_from
            raise InputError(
                f"the split has no {name} interactions (training before {_day(train_until)}, test from "
                f"{_day(test_from)} on; they go from {_day(min(times))} to {_day(max(times))}): choose other days as "
                "validate_from and test_from."
            )


def _check_size(held_out: float) -> None:
    """Refuse a number of held-out items that is neither a whole number nor a share.

    Raises:
        InputError: the number is neither.
    """
    if held_out <= 0 or (held_out > 1 and held_out != int(held_out)):
        raise InputError(
            f"held_out must be a whole number of items or a share of them between 0 and 1, not {held_out}."
        )


def _number(n: int) -> str:
    return {1: "one", 2: "two"}.get(n, str(n))


def _day(seconds: int) -> str:
    return str(np.datetime64(int(seconds), "s").astype("datetime64[D]"))


def given_split(
    train: pd.DataFrame,
    validation: pd.DataFrame,
    test: pd.DataFrame,
    n_users: int,
    n_items: int,
) -> tuple[Interactions, HeldOut, HeldOut]:
    """A split that came with the data.

    Users may have any number of held-out items, and users and items may occur in the test alone. Repeated pairs count
    once. A pair that is both held out and in training is taken out of training (and one that is both test and
    validation, out of validation), with a warning: no model may have seen it.

    Args:
        train, validation, test: as `table` in `leave_two_out`; without validation nothing is chosen by it.
        n_users, n_items: sizes of the two index ranges.

    Returns:
        Training interactions, validation items, test items.

    Raises:
        InputError: there are no training or no test interactions.
    """
    parts = {"training": train, "validation": validation, "test": test}
    for name, part in parts.items():
        if part.empty and name != "validation":
            raise InputError(f"the split is empty: there are no {name} interactions.")
    times = all(Columns.TIME in part for part in parts.values() if not part.empty)
    # Of a pair in several parts the last counts, of one that a part repeats the first.
    table = pd.concat([first_occurrences(part).assign(part=n) for n, part in enumerate(parts.values())])
    twice = table.duplicated(PAIR, keep="last").to_numpy()
    leaked, double = (int((table["part"].to_numpy()[twice] == n).sum()) for n in (0, 1))
    if twice.any():
        tell(
            f"{leaked} held-out pairs were also in training, and {double} validation items were also "
            "the user's test item: they are only held out."
        )
    table = table[~twice]
    users, items = (table[column].to_numpy(np.int64) for column in PAIR)
    moments = table[Columns.TIME].to_numpy(np.int64) if times else None
    part_of = table["part"].to_numpy()
    kept, *held = (
        Interactions.from_pairs(users[part], items[part], n_users, n_items, None if moments is None else moments[part])
        for part in (part_of == n for n in range(3))
    )
    return kept, HeldOut(held[0]), HeldOut(held[1])


def _index_ids(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Number ids in their alphabetical order.

    Args:
        values: ids, with repetitions.

    Returns:
        (n,) int64 index of each value, and the distinct ids in order (object array of str).
    """
    codes, ranks, ids, _ = _ranked(values)
    return ranks[codes], ids


def _ranked(values: pd.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(n,) codes of ids, the place in alphabetical order of each code (-1 where the id does not occur), the ids in that
    order (object array of str), and how often each of these occurs."""
    codes, distinct = distinct_values(values)
    counts = counts_of(codes, len(distinct))
    there = np.flatnonzero(counts)
    ids = np.array([str(value) for value in distinct.iloc[there]], dtype=object)
    order = np.argsort(ids, kind="stable")
    ranks = np.full(len(counts), -1)
    ranks[there[order]] = np.arange(len(ids))
    return codes, ranks, ids[order], counts[there[order]]


def split_dataset(
    name: str,
    table: pd.DataFrame,
    items: pd.DataFrame,
    *,
    min_interactions: int | None = 5,
    keep_unused_items: bool = False,
    split: str = "random",
    seed: int = 0,
    held_out: float = 1,
    validate: bool = True,
    validate_from: str | None = None,
    test_from: str | None = None,
) -> Dataset:
    """Filter, number and split interactions into a dataset without images.

    Args:
        name: the dataset's name.
        table: columns `user` and `item` (ids) and perhaps `timestamp` (Unix seconds); every item has a row in
            `items`.
        items: the item table, one row an item, with the column `item`.
        min_interactions: users with fewer different items are dropped; None drops none.
        keep_unused_items: whether items that nobody interacted with stay in the catalogue.
        split: "random" or "time" to hold out some items of every user (`leave_two_out`), or "date" to test what came
            after a day, so that a model knows nothing of what happened later: users and items that occur later alone
            stay in the data.
        seed, held_out, validate: of "random" and "time", see `leave_two_out`.
        validate_from, test_from: of "date": the first days of validation (None validates nothing) and of the test, such
            as "2020-09-16".

    Raises:
        InputError: see `check_split` and `leave_two_out`; no user has as many different items, there are no times for a
            split by them, or a part of the split by date is empty.
    """
    check_split(min_interactions, split, held_out, validate, validate_from, test_from)
    if Columns.TIME not in table and split != "random":
        raise InputError(UNTIMED.format(split))
    codes, ranks, user_ids, counts = _ranked(table[Columns.USER])
    items = items.sort_values(Columns.ITEM).reset_index(drop=True)
    item_codes, distinct = distinct_values(table[Columns.ITEM])
    places = pd.Index(items[Columns.ITEM]).get_indexer(distinct)
    times = table[Columns.TIME].to_numpy(np.int64) if Columns.TIME in table else None
    kept, used, most = np.zeros(len(user_ids), bool), np.zeros(len(items), bool), 0
    days = None
    if test_from is not None:
        days = None if validate_from is None else _seconds(validate_from), _seconds(test_from)
    stream = np.random.PCG64(seed)

    def blocks() -> Iterator[list[Interactions]]:
        nonlocal most
        for first, end, pairs in blocks_of_users(
            lambda part: ranks[codes[part]], lambda part: places[item_codes[part]], times, counts
        ):
            lengths = np.bincount(pairs.users - first, minlength=end - first)
            enough = lengths >= (min_interactions or 1)
            kept[first:end], most = enough, max(most, int(lengths.max(initial=0)))
            numbers, n_users = np.cumsum(enough) - 1, int(enough.sum())
            chosen = enough[pairs.users - first]
            pairs = Pairs(numbers[pairs.users - first], pairs.items, pairs.times).where(chosen)
            used[pairs.items] = True
            if days is None:
                parts = _left_out(pairs, n_users, split, stream, user_ids[first:end][enough], held_out, validate)
            else:
                assert pairs.times is not None
                parts = _by_date(pairs.times, *days)
            yield [pairs.where(part).interactions(n_users, len(items)) for part in parts]

    parts = joined(blocks()) if len(table) > BLOCK else next(blocks())
    if table.empty:
        raise InputError("the split is empty: there are no interactions.")
    if not kept.any():
        raise InputError(
            f"the split is empty: no user has {min_interactions} different items (the most is {most}); "
            "lower min_interactions or check the interactions."
        )
    if kept.sum() < len(kept):
        tell(
            f"{name}: {(~kept).sum():,} of {len(kept):,} users have fewer than {min_interactions} different items and "
            f"are left out, and with them {counts[~kept].sum():,} of {len(table):,} interactions (min_interactions)."
        )
    if not keep_unused_items:
        items = items[used].reset_index(drop=True)
        parts = [renumbered(part, np.cumsum(used) - 1, len(items)) for part in parts]
    record: dict[str, object] = {"kind": split, "seed": seed, "min_interactions": min_interactions}
    if days is not None:
        _check_parts(parts, *days)
        del record["seed"]
        record |= {"validate_from": validate_from, "test_from": test_from}
    else:
        if held_out != 1:
            record["held_out"] = held_out if held_out < 1 else int(held_out)
        if not validate:
            record["validate"] = False
    train, validation, test = parts
    return Dataset(name, user_ids[kept], items, train, HeldOut(validation), HeldOut(test), split=record)


def check_split(
    min_interactions: int | None,
    split: str,
    held_out: float,
    validate: bool,
    validate_from: str | None,
    test_from: str | None,
) -> None:
    """Refuse, before any data is read, whatever no data could be split by.

    Args:
        min_interactions, split, held_out, validate, validate_from, test_from: see `split_dataset`.

    Raises:
        InputError: an unknown split, an option that is none of the split's, something that is no day, days in the wrong
            order, or a `min_interactions` that leaves nothing to train on.
    """
    if split not in KINDS:
        raise unknown_name("split", split, KINDS)
    dated = split == "date"
    if dated and (held_out, validate) != (1, True):
        raise InputError("held_out and validate are options of the splits 'random' and 'time': leave them out.")
    if dated and test_from is None:
        raise InputError("the split by date needs test_from, the first day of the test, such as '2020-09-16'.")
    if not dated and (validate_from, test_from) != (None, None):
        raise InputError("validate_from and test_from are options of split='date': add it, or leave them out.")
    if test_from is not None:
        _check_days(_seconds(test_from if validate_from is None else validate_from), _seconds(test_from), validate_from)
    _check_size(held_out)
    _check_minimum(min_interactions, _least_held_out(split, held_out, validate))


def _least_held_out(split: str, held_out: float, validate: bool) -> int:
    """How many items of every user are held out at least."""
    return 0 if split == "date" else (1 + validate) * max(1, int(held_out))


def _check_minimum(min_interactions: int | None, held_out: int) -> None:
    if min_interactions is not None and min_interactions <= held_out:
        raise InputError(
            f"min_interactions must be at least {held_out + 1} ({held_out} to hold out and one to train on), "
            f"not {min_interactions}."
        )


def _check_days(train_until: int, test_from: int, validate_from: object) -> None:
    if train_until > test_from or (train_until == test_from and validate_from is not None):
        raise InputError(
            f"validate_from ({_day(train_until)}) must come before test_from ({_day(test_from)}); "
            "leave it out to validate nothing."
        )


def with_given_split(
    name: str, tables: Sequence[pd.DataFrame], catalogue: pd.DataFrame, keep_unused_items: bool
) -> Dataset:
    """A dataset whose split came with it.

    Args:
        name: the dataset's name.
        tables: interactions by ids for training, perhaps for validation, and for the test, see `given_split`.
        catalogue: the item table; every item of the interactions has a row.
        keep_unused_items: whether items that nobody interacted with stay in the catalogue.

    Raises:
        InputError: see `given_split`.
    """
    users, user_ids = _index_ids(pd.concat([table[Columns.USER] for table in tables]))
    catalogue = catalogue.sort_values(Columns.ITEM)
    if not keep_unused_items:
        used = pd.concat([table[Columns.ITEM] for table in tables])
        catalogue = catalogue[catalogue[Columns.ITEM].isin(used)]
    catalogue = catalogue.reset_index(drop=True)
    index = pd.Index(catalogue[Columns.ITEM])
    if len(tables) == 2:
        tables = [tables[0], tables[0][:0], tables[1]]
    parts, start = [], 0
    for table in tables:
        part = table.assign(
            **{
                Columns.USER: users[start : start + len(table)],
                Columns.ITEM: index.get_indexer(table[Columns.ITEM]),
            }
        )
        parts.append(part)
        start += len(table)
    split = given_split(parts[0], parts[1], parts[2], len(user_ids), len(catalogue))
    return Dataset(name, user_ids, catalogue, *split, split={"kind": "given"})


def _seconds(day: str) -> int:
    """Unix seconds at which a day begins (UTC).

    Raises:
        InputError: it is no day.
    """
    try:
        moment = np.datetime64(day, "s")
    except ValueError:
        raise InputError(f"{day!r} is not a day: write it as 2020-09-16.") from None
    if np.isnat(moment):
        raise InputError(f"{day!r} is not a day: write it as 2020-09-16.")
    return int(moment.astype(np.int64))

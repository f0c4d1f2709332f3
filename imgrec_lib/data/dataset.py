"""The one dataset type, and the part of it that models may see.

A `Dataset` holds everything, held-out items included. Models and the trainer only ever receive its
`TrainingData`, in which no held-out interaction exists: no model can learn from one, by construction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError, few
from imgrec_lib.files import fingerprint
from imgrec_lib.options import Below


class Columns:
    """Column names, written once.

    `USER`, `ITEM` and `TIME` are those of an interactions table; `ITEM`, `CATEGORY`, `NAME`, `DESCRIPTION` and `GROUP`
    those of an item table, whose every other column is an attribute. Items of the same group are variants of one
    product, such as a shirt in several colours.
    """

    USER = "user"
    ITEM = "item"
    TIME = "timestamp"
    CATEGORY = "category"
    NAME = "name"
    DESCRIPTION = "description"
    GROUP = "group"


@dataclass(frozen=True)
class Interactions:
    """Which items each user interacted with, in compressed sparse rows.

    Attributes:
        indptr: (n_users + 1,) int64; the items of user u are `items[indptr[u]:indptr[u + 1]]`.
        items: (n_interactions,) int64, ascending and without repetition inside a user.
        n_items: size of the catalogue, cold items included.
        times: (n_interactions,) int64 Unix seconds, or None when the data has no timestamps.
    """

    indptr: np.ndarray
    items: np.ndarray
    n_items: int
    times: np.ndarray | None = None

    @classmethod
    def from_pairs(
        cls, users: np.ndarray, items: np.ndarray, n_users: int, n_items: int, times: np.ndarray | None = None
    ) -> Interactions:
        """Build from (user, item) index pairs, in any order and without repetitions.

        Args:
            users, items: (n,) integer indices.
            n_users, n_items: sizes of the two index ranges.
            times: (n,) Unix seconds, optional.

        Raises:
            ValueError: an index is out of range or a pair occurs twice.
        """
        users, items = np.asarray(users, dtype=np.int64), np.asarray(items, dtype=np.int64)
        if len(users) and (users.min() < 0 or users.max() >= n_users or items.min() < 0 or items.max() >= n_items):
            raise ValueError("an interaction's user or item index is out of range")
        keys = users * n_items + items
        order = np.argsort(keys, kind="stable")
        if len(keys) > 1 and (np.diff(keys[order]) == 0).any():
            raise ValueError("an interaction occurs twice; drop repeated (user, item) pairs first")
        indptr = np.zeros(n_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(users, minlength=n_users), out=indptr[1:])
        return cls(indptr, items[order], n_items, None if times is None else np.asarray(times, np.int64)[order])

    def __len__(self) -> int:
        return len(self.items)

    @property
    def n_users(self) -> int:
        """Number of users, those without interactions included."""
        return len(self.indptr) - 1

    @property
    def users(self) -> np.ndarray:
        """(n_interactions,) int64: the user of each interaction."""
        return np.repeat(np.arange(self.n_users), self.history_lengths)

    @property
    def history_lengths(self) -> np.ndarray:
        """(n_users,) int64: interactions of each user."""
        return np.diff(self.indptr)

    @property
    def popularity(self) -> np.ndarray:
        """(n_items,) int64: interactions of each item."""
        return np.bincount(self.items, minlength=self.n_items)

    def of(self, user: int) -> np.ndarray:
        """Items of one user: (history length,) int64, ascending."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]


class HeldOut:
    """The held-out items of each user: one, several or none.

    Args:
        items: (n_users,) int64, one item a user and -1 where there is none; or all held-out interactions.
        times: (n_users,) int64 Unix seconds of the held-out items, with the former; or None.

    Attributes:
        n_users: number of users.
        users: (n,) int64, ascending: the user of each held-out interaction.
        flat: (n,) int64: the item of each, ascending inside a user.
        times: (n_users,) int64 Unix seconds at which each user is served: the time of the first of his held-out
            interactions (any number for a user without), or None.
    """

    def __init__(self, items: np.ndarray | Interactions, times: np.ndarray | None = None) -> None:
        if isinstance(items, Interactions):
            self.n_users, self.users, self.flat = items.n_users, items.users, items.items
            if items.times is not None:
                times = np.zeros(items.n_users, np.int64)
                held = items.history_lengths > 0
                times[held] = np.minimum.reduceat(items.times, items.indptr[:-1][held]) if held.any() else 0
        else:
            self.n_users, self.users = len(items), np.flatnonzero(items >= 0)
            self.flat = items[self.users]
        self.times = times

    def __len__(self) -> int:
        return len(self.users)

    @property
    def several(self) -> bool:
        """Whether a user has more than one."""
        return bool((np.diff(self.users) == 0).any())

    @property
    def items(self) -> np.ndarray:
        """(n_users,) int64: the held-out item of each user, -1 where there is none.

        Raises:
            ValueError: a user has several.
        """
        if self.several:
            raise ValueError("a user has several held-out items: read `users` and `flat`, or `of`")
        items = np.full(self.n_users, -1, dtype=np.int64)
        items[self.users] = self.flat
        return items

    def of(self, user: int) -> np.ndarray:
        """(held-out items of the user,) int64, ascending."""
        low, high = self.users.searchsorted([user, user + 1])
        return self.flat[low:high]


def split_sets(values: np.ndarray, widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The columns of each of several sets of features that stand one behind the other, by their names.

    Args:
        values: (n_items, n_features).
        widths: number of columns of each set; empty for a single one without a name, which is then called "picture".
    """
    ends = np.cumsum(list(widths.values()))
    parts = zip(widths.items(), ends, strict=True)
    return {name: values[:, end - width : end] for (name, width), end in parts} or {"picture": values}


@runtime_checkable
class ItemFeatures(Protocol):
    """Features of a catalogue whose rows are known to be its items: see `features.Features`."""

    @property
    def values(self) -> np.ndarray: ...

    @property
    def widths(self) -> Mapping[str, int]: ...

    @property
    def fingerprint(self) -> str: ...


def check_features(features: Any) -> None:
    """Refuse what is no features of a catalogue.

    Raises:
        InputError: with the remedy.
    """
    if features is not None and not isinstance(features, ItemFeatures):
        raise InputError(
            f"features must be what extract_features or read_features returns, not {type(features).__name__}: "
            "read_features joins vectors of your own to the items by their ids."
        )


@dataclass(frozen=True)
class TrainingData:
    """All that a model and the trainer may see: no held-out item is in here.

    Attributes:
        interactions: the training interactions.
        categories: (n_items,) int64 category index of each item, or None.
        n_categories: number of categories (0 without categories).
        category_names: what the category indices stand for; empty where unknown.
        groups: (n_items,) int64 index of each item's group of variants, or None.
        attributes: the item table's attribute columns as text (n_items rows, maybe no column).
        features: (n_items, n_features) float32 features of pictures or of what else describes items, or None; rows of
            zeros are items without any. May be memory-mapped.
        feature_widths: of several named sets of features, which stand one behind the other, the columns of each.
        images: the image store, or None.
    """

    interactions: Interactions
    categories: np.ndarray | None = None
    n_categories: int = 0
    category_names: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    attributes: pd.DataFrame | None = None
    features: np.ndarray | None = None
    feature_widths: Mapping[str, int] = field(default_factory=dict)
    images: ImageStore | None = None

    @property
    def n_users(self) -> int:
        return self.interactions.n_users

    @property
    def n_items(self) -> int:
        return self.interactions.n_items


@dataclass(frozen=True)
class Oracle:
    """Known preferences of simulated users: the score of (u, i) is `users[u] @ items[i]`.

    Attributes:
        users: (n_users, k) float32.
        items: (n_items, k) float32.
    """

    users: np.ndarray
    items: np.ndarray


@dataclass(frozen=True)
class FurtherPictures:
    """The pictures of items that have several, without the first, which is in `Dataset.images`.

    Attributes:
        items: (m,) int64, ascending: the item of each picture.
        images: the m pictures, in the same order.
    """

    items: np.ndarray
    images: ImageStore


@dataclass(frozen=True, eq=False)
class Dataset:
    """Users, items, the split interactions, the item table and the pictures.

    Attributes:
        name: the reader's name with what distinguishes this data ("wardrobe", "hm").
        user_ids: (n_users,) str, the users' original ids.
        items: one row an item, in index order; columns `item` (original id, str), `category` (str, optional),
            `name` and `description` (str, optional), `group` (str, optional: items of the same group are variants of
            one product); all others are attributes.
        train: training interactions.
        validation, test: the held-out items.
        images: the image store (its row i is item i's picture), or None.
        further_pictures: the other pictures of items that have several; None where no item has.
        picture_addresses: where the pictures can be downloaded, by item id, where the item table says so.
        oracle: the true preferences where the data is simulated, else None.
        split: how the split was made, for the record (kind, seed, minimum interactions).
        pictures_count: whether the fingerprints count the pictures. Those that readers find in files do not: they are
            prepared when a model looks at them, and what it makes of them is keyed by their own fingerprint.
    """

    name: str
    user_ids: np.ndarray
    items: pd.DataFrame
    train: Interactions
    validation: HeldOut
    test: HeldOut
    images: ImageStore | None = None
    oracle: Oracle | None = None
    split: dict[str, object] | None = None
    further_pictures: FurtherPictures | None = None
    picture_addresses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pictures_count: bool = True

    @property
    def n_users(self) -> int:
        return self.train.n_users

    @property
    def n_items(self) -> int:
        return self.train.n_items

    @cached_property
    def ranking_fingerprint(self) -> str:
        """16 hexadecimal digits of ids, interactions and split, by which negative lists are keyed.

        Pictures are among them where they count (`pictures_count`).

        What else the item table says is left out: all models are ranked against the same items, whatever they know.
        """
        times = () if self.train.times is None else (self.train.times,)
        pictures = "" if self.images is None or not self.pictures_count else self.images.fingerprint
        held = [(part.users, part.flat) if part.several else (part.items,) for part in (self.validation, self.test)]
        return fingerprint(
            self.user_ids, self.items[Columns.ITEM].to_numpy(), self.train.indptr, self.train.items, *times,
            *held[0], *held[1], pictures,
        )  # fmt: skip

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of all that a model can learn from: two datasets with the same digits are equal.

        Categories, groups and attributes count, and pictures where `pictures_count` says so. The items' names and
        descriptions do not: models learn from them by way of features alone, which have digits of their own.
        Checkpoints and runs are keyed by it.
        """
        known = self.items.drop(columns=[Columns.ITEM, Columns.NAME, Columns.DESCRIPTION], errors="ignore")
        described = [(column, known[column].astype(str).to_numpy(dtype=object)) for column in known]
        return fingerprint(self.ranking_fingerprint, *(part for pair in described for part in pair))

    @property
    def categories(self) -> tuple[np.ndarray, list[str]] | None:
        """(n_items,) int64 category indices and their names in alphabetical order; None without categories."""
        if Columns.CATEGORY not in self.items:
            return None
        values = pd.Categorical(self.items[Columns.CATEGORY].astype(str))
        return values.codes.astype(np.int64), [str(c) for c in values.categories]

    @property
    def groups(self) -> np.ndarray | None:
        """(n_items,) int64 indices of the groups of variants, in the order of their names; None without groups."""
        if Columns.GROUP not in self.items:
            return None
        return pd.Categorical(self.items[Columns.GROUP].astype(str)).codes.astype(np.int64)

    def bought_variants(self, held: HeldOut) -> np.ndarray | None:
        """Which held-out items are variants of something bought: the user has a training item of the same group.

        Args:
            held: held-out items of this dataset.

        Returns:
            (n,) bool, in the order of `held.flat`; None without groups.
        """
        groups = self.groups
        if groups is None:
            return None
        width = int(groups.max(initial=0)) + 1
        return np.isin(held.users * width + groups[held.flat], self.train.users * width + groups[self.train.items])

    @property
    def attribute_columns(self) -> list[str]:
        """Names of the item table's attribute columns."""
        described = (Columns.ITEM, Columns.CATEGORY, Columns.NAME, Columns.DESCRIPTION, Columns.GROUP)
        return [c for c in self.items.columns if c not in described]

    def training_data(
        self, features: ItemFeatures | pd.DataFrame | np.ndarray | None = None, *, in_order: bool = False
    ) -> TrainingData:
        """The part that models and trainer may see.

        Args:
            features: what `extract_features` or `read_features` made for this catalogue; a DataFrame of numbers whose
                index are the item ids; or, with `in_order`, an (n_items, n_features) array.
            in_order: the rows of an array are those of `items`. An array does not say which item a row is, and the
                order of `items` is seldom that of a file: so it is never taken for granted.

        Raises:
            InputError: an array without `in_order`, features of another number of items, of an item that is missing or
                repeated, or that are not finite.
        """
        values = None if features is None else self._feature_values(features, in_order)
        categories = self.categories
        return TrainingData(
            interactions=self.train,
            categories=None if categories is None else categories[0],
            n_categories=0 if categories is None else len(categories[1]),
            category_names=() if categories is None else tuple(categories[1]),
            groups=self.groups,
            attributes=self.items[self.attribute_columns],
            features=values,
            feature_widths=features.widths if isinstance(features, ItemFeatures) else {},
            images=self.images,
        )

    def _feature_values(self, features: ItemFeatures | pd.DataFrame | np.ndarray, in_order: bool) -> np.ndarray:
        """The rows of features in the order of the catalogue, checked."""
        ids = self.items[Columns.ITEM]
        if isinstance(features, pd.DataFrame):
            table = features.set_axis(features.index.astype(str))
            if table.index.has_duplicates or not ids.isin(table.index).all():
                missing, repeated = ids[~ids.isin(table.index)], table.index[table.index.duplicated()].unique()
                which, wrong = ("no row of", missing) if len(missing) else ("more than one row of", repeated)
                raise InputError(
                    f"the features have {which} {len(wrong):,} items ({few(wrong)}): give each item of the catalogue "
                    "one row."
                )
            values = table.loc[ids].to_numpy(np.float32)
        elif isinstance(features, ItemFeatures):
            values = features.values
        elif in_order:
            values = np.asarray(features)
            # What is read from a file piece by piece stays there.
            values = values if values.dtype == np.float32 else values.astype(np.float32)
        else:
            raise InputError(
                "an array does not say which item each of its rows is: give a DataFrame whose index are the item ids, "
                "or in_order=True where the rows are those of dataset.items."
            )
        if len(values) != self.n_items:
            raise InputError(
                f"the features have {len(values)} rows but dataset {self.name!r} has {self.n_items} items: "
                "extract them again for this dataset."
            )
        _require_finite(values, ids)
        return values

    def undivided(self) -> Dataset:
        """The same users and items with nothing held out: every known interaction is a training interaction."""
        train, held = self.train, (self.validation, self.test)
        users = np.concatenate([train.users, *(part.users for part in held)])
        items = np.concatenate([train.items, *(part.flat for part in held)])
        # A split that was given may hold a pair twice; its first time stands.
        _, first = np.unique(users * self.n_items + items, return_index=True)
        times = None
        if train.times is not None and all(part.times is not None for part in held):
            # One time is known for all held-out items of a user.
            late = [part.times[part.users] for part in held if part.times is not None]
            times = np.concatenate([train.times, *late])[first]
        whole = Interactions.from_pairs(users[first], items[first], self.n_users, self.n_items, times)
        nothing = HeldOut(np.full(self.n_users, -1))
        split = (self.split or {}) | {"kind": "nothing held out"}
        return replace(self, train=whole, validation=nothing, test=nothing, split=split)

    def without_groups(self) -> Dataset:
        """The same dataset, of which it is not known which items are variants of one product."""
        return replace(self, items=self.items.drop(columns=Columns.GROUP, errors="ignore"))

    def with_images(self, images: ImageStore | None, further: FurtherPictures | None = None) -> Dataset:
        """The same dataset with other pictures."""
        return replace(self, images=images, further_pictures=further)

    def pictures_of(self, item: Annotated[int, Below("self.n_items")]) -> list[np.ndarray]:
        """All pictures of an item that can be shown, its first one first: (size, size, 3) uint8 each; maybe none."""
        found = [] if self.images is None or not self.images.present[item] else [self.images.pixels[item]]
        if self.further_pictures is not None:
            images = self.further_pictures.images
            low, high = self.further_pictures.items.searchsorted([item, item + 1])
            found += [images.pixels[row] for row in range(low, high) if images.present[row]]
        return [np.asarray(pixels) for pixels in found]


def latest_items(dataset: Dataset, user: int) -> np.ndarray:
    """Training items of a user, the latest first where times are known: (history length,) int64."""
    items, times = dataset.train.of(user), dataset.train.times
    if times is None:
        return items
    own = times[dataset.train.indptr[user] : dataset.train.indptr[user + 1]]
    return items[np.argsort(-own, kind="stable")]


def describe_item(dataset: Dataset, item: int) -> tuple[str, ...]:
    """Name (the id where it has none) and category of an item, where known, each said once.

    A name that has the category's word in it ("maxi dress" among "dresses") needs no category beside it, nor the one in
    brackets at its end.
    """
    columns = (Columns.ITEM, Columns.NAME, Columns.CATEGORY)
    # Reading two cells is faster than taking a whole row of the table.
    row: dict[str, Any] = {column: dataset.items[column].iat[item] for column in columns if column in dataset.items}
    name = row.get(Columns.NAME)
    name = str(row[Columns.ITEM] if name is None or pd.isna(name) or not str(name).strip() else name)
    if Columns.CATEGORY not in row:
        return (name,)
    category = str(row[Columns.CATEGORY])
    word = re.sub(r"(?<=s)es$|s$", "", category.lower())
    short = name.removesuffix(f" ({category})")
    if word in short.lower():
        return (short,)
    return (name,) if word in name.lower() else (name, category)


def _require_finite(features: np.ndarray, ids: pd.Series, rows: int = 4096) -> None:
    """Refuse features with a NaN or an infinite number, naming the item; some rows at a time are in memory."""
    for start in range(0, len(features), rows):
        part = features[start : start + rows]
        part = part.reshape(len(part), -1)
        # The product with ones is finite only if all numbers are, and takes no longer than reading them. It may also
        # overflow: where it is not finite, the numbers are looked at one by one.
        with np.errstate(all="ignore"):
            if np.isfinite(part @ np.ones(part.shape[1], part.dtype)).all():
                continue
        finite = np.isfinite(part).all(axis=1)
        if not finite.all():
            item = ids.iloc[start + int(np.flatnonzero(~finite)[0])]
            raise InputError(
                f"the features of item {item!r} are not finite: extract them again, or leave the item out."
            )

"""A trained model with the data that it stands on: what one recommends with, by the catalogue's own ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from imgrec_lib.data.dataset import Columns, Dataset, Interactions
from imgrec_lib.devices import DeviceName
from imgrec_lib.errors import InputError, tell, unknown_name
from imgrec_lib.evaluation import ValidationMetrics, scorer_of
from imgrec_lib.evaluation.neighbours import search_neighbours
from imgrec_lib.evaluation.protocols import owned_items
from imgrec_lib.evaluation.top import top_items
from imgrec_lib.features import Features, picture_features
from imgrec_lib.features.controls import with_control
from imgrec_lib.features.extraction import OwnFeatures
from imgrec_lib.models import build_model, list_models, model_card
from imgrec_lib.models.base import Baskets, Recommender, Scorer, item_vectors
from imgrec_lib.options import Count, CountOrNone
from imgrec_lib.request import Moved
from imgrec_lib.runs import Inputs, Run, check_roots, load_model, open_run
from imgrec_lib.serving.elsewhere import open_lists
from imgrec_lib.serving.ids import Table, pairs_of, positions
from imgrec_lib.training import fit

POPULARITY = "popularity"
"""What the column `by` says of items that were chosen by how much they sell."""

BASKETS_AT_ONCE = 256
"""New customers who are scored at a time, each for the whole catalogue."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model and its data.

    Attributes:
        model: the trained model, in evaluation mode.
        dataset: what it was trained on.
        given: the visual features of the catalogue, each item's own whatever the run's control, or what loads them
            when they are first asked for (`features`); None where there are none.
        finished: the run that it comes from; None for one that was trained in memory.
        title: what to call the model in tables ("BPR-MF"), with the control that it was trained under.
    """

    model: Recommender
    dataset: Dataset
    given: Features | Callable[[], Features | None] | None
    finished: Run | None
    title: str

    @classmethod
    def of(
        cls, run: Run, dataset: Dataset, features: Features | Callable[[], Features | None] | None = None
    ) -> Trained:
        """The trained model of a finished run, on the CPU, where its data are in memory.

        Args:
            run: the run.
            dataset: what it was trained on.
            features: the catalogue's own, as `Inputs.of` gives them; of a model that uses none None, or what loads them
                to compare items.

        Raises:
            InputError: see `load_model`.
        """
        record = run.record
        control = record.control
        used = (
            None if record.features is None or not isinstance(features, Features) else with_control(features, control)
        )
        title = record.title + (f" ({control})" if control else "")
        model = open_lists(run, dataset) if record.stage == "lists" else load_model(run, dataset, used)
        return cls(model, dataset, features, run, title)

    @cached_property
    def features(self) -> Features | None:
        """The visual features of the catalogue; None where there are none."""
        return self.given() if callable(self.given) else self.given

    @property
    def run(self) -> Run:
        """The run that it comes from.

        Raises:
            InputError: it was trained in memory.
        """
        if self.finished is None:
            raise InputError(f"{self.title} was trained in memory and has no run: train it with train_run.")
        return self.finished

    @cached_property
    def item_ids(self) -> np.ndarray:
        """(n_items,) str."""
        return self.dataset.items[Columns.ITEM].to_numpy().astype(str)

    @cached_property
    def users(self) -> pd.Index:
        """(n_users,) str, indexed: who stands where is found without a search."""
        return pd.Index(self.dataset.user_ids.astype(str))

    @cached_property
    def items(self) -> pd.Index:
        """(n_items,) str, indexed likewise."""
        return pd.Index(self.item_ids)

    @cached_property
    def item_names(self) -> np.ndarray | None:
        """(n_items,) str; None where the item table has no names."""
        table = self.dataset.items
        return table[Columns.NAME].astype(str).to_numpy() if Columns.NAME in table else None

    @cached_property
    def scorer(self) -> Scorer:
        """The model's scorer, at the time of the test items where the model uses time."""
        with torch.no_grad():
            return scorer_of(self.model, self.dataset.test.times)

    @cached_property
    def learned(self) -> Tensor | None:
        """The items as the model has learnt them, see `models.base.item_vectors`."""
        return item_vectors(self.scorer)

    @property
    def feature_sets(self) -> dict[str, np.ndarray]:
        """(n_items, d) float32 by the name of each set of features, see `Features.views`; empty without features."""
        return {} if self.features is None else self.features.views

    @cached_property
    def popularity(self) -> np.ndarray:
        """(n_items,) int64: training interactions of each item."""
        return self.dataset.train.popularity

    @cached_property
    def categories(self) -> tuple[np.ndarray, list[str]] | None:
        """`Dataset.categories`, kept."""
        return self.dataset.categories

    @cached_property
    def owned(self) -> Interactions:
        """All that each user is known to have bought: training, validation and test items."""
        dataset = self.dataset
        return owned_items(dataset.train, dataset.validation, dataset.test)

    def recommend(
        self,
        users: Iterable[Any] | None = None,
        k: Count = 10,
        *,
        baskets: Table | None = None,
        include_owned: bool = False,
        items: Iterable[Any] | None = None,
        without: Iterable[Any] = (),
        where: Mapping[str, Any] | None = None,
        where_not: Mapping[str, Any] | None = None,
        one_per_group: bool = False,
    ) -> pd.DataFrame:
        """The k best items of each user, in the catalogue's own ids.

        Args:
            users: ids of known users; all of them where neither users nor baskets are given.
            k: length of a list.
            baskets: what customers bought whom the model was not trained on: a table or file with the columns `user`
                and `item`. A customer of whom no purchase is known gets the most popular items, and a warning says so;
                so does a known user without one.
            include_owned: also recommend what a user has bought already (held-out purchases count as bought).
            items: ids of the items that may be recommended; None: all.
            without: ids of items that may not.
            where: values of columns of the item table that an item must have, such as {"category": "shoes"} or
                {"colour": ["red", "pink"]}.
            where_not: the same of values that an item must not have.
            one_per_group: of the variants of a product (column `group` of the item table) only the best.

        Returns:
            Columns `user`, `item`, `rank` (from 1), `score`, `name` (where the item table has it) and `by` (the
            model's name, or "popularity"); best first, users in the order given.

        Raises:
            InputError: an unknown user, item or column, `k` below 1, no item that may be recommended, or a model that
                cannot score for baskets.

        Example:
            >>> from imgrec_lib import load_dataset, train
            >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
            >>> trained = train("bpr-mf", dataset, factors=8, epochs=2, progress=False)
            >>> shoes = trained.recommend(["user-0007", "user-0008"], k=2, where={"category": "women's shoes"})
            >>> shoes["user"].tolist()
            ['user-0007', 'user-0007', 'user-0008', 'user-0008']
        """
        choice = self._choice(
            k, include_owned, one_per_group, items=items, without=without, where=where, where_not=where_not
        )
        parts = []
        if users is not None or baskets is None:
            parts.append(self._lists_for(users, choice))
        if baskets is not None:
            parts.append(self._lists_for_baskets(baskets, choice))
        return pd.concat(map(self._table, parts), ignore_index=True)

    def _choice(self, k: Count, include_owned: bool = False, one_per_group: bool = False, **conditions: Any) -> _Choice:
        """What may be listed, by the arguments of `recommend`; the conditions are those of `_admissible`."""
        return _Choice(k, include_owned, self._admissible(**conditions), self._groups() if one_per_group else None)

    def _lists_for(self, users: Iterable[Any] | None, choice: _Choice) -> _Lists:
        """The lists of known users by id, or of all of them."""
        known = np.arange(self.dataset.n_users) if users is None else positions("user", self.users, users)
        owned = self._nothing(self.dataset.n_users) if choice.include_owned else self.owned
        empty = self.dataset.train.history_lengths[known] == 0
        return self._lists(self.scorer, known, self.dataset.user_ids[known], owned, empty, choice)

    def similar(self, items: Iterable[Any] | None = None, k: Count = 10, *, by: str = "learned") -> pd.DataFrame:
        """The k most similar items of each item, by cosine.

        Args:
            items: ids; all items where None.
            k: length of a list.
            by: "learned", the items as the model has learnt them; "picture", the features that the model was given; or
                of several sets of features the name of one.

        Returns:
            Columns `item`, `similar`, `rank`, `similarity` and, where the item table has names, `name` (of the similar
            item).

        Raises:
            InputError: an unknown item, or the model has no such vectors.

        Example:
            >>> from imgrec_lib import load_dataset, train
            >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
            >>> trained = train("bpr-mf", dataset, factors=8, epochs=2, progress=False)
            >>> trained.similar(["item-0003"], k=2)["rank"].tolist()
            [1, 2]
        """
        queries = np.arange(self.dataset.n_items) if items is None else positions("item", self.items, items)
        found = search_neighbours(self.item_vectors(by), queries, k)
        width = found.items.shape[1]
        table = {
            "item": np.repeat(self.item_ids[queries], width),
            "similar": self.item_ids[found.items.ravel()],
            "rank": np.tile(np.arange(1, width + 1), len(queries)),
            "similarity": found.similarity.ravel(),
        }
        return self._with_names(pd.DataFrame(table), found.items.ravel())

    def score(self, pairs: Table) -> pd.DataFrame:
        """The scores of users for items.

        Args:
            pairs: a table or file with the columns `user` and `item`.

        Returns:
            The table with a column `score`.

        Raises:
            InputError: an unknown user or item.

        Example:
            >>> import pandas as pd
            >>> from imgrec_lib import load_dataset, train
            >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
            >>> trained = train("bpr-mf", dataset, factors=8, epochs=2, progress=False)
            >>> trained.score(pd.DataFrame({"user": ["user-0007"], "item": ["item-0003"]})).columns.tolist()
            ['user', 'item', 'score']
        """
        table = pairs_of(pairs)
        users = positions("user", self.users, table["user"])
        items = positions("item", self.items, table["item"])
        with torch.no_grad():
            scores = self.scorer.pairs(torch.from_numpy(users), torch.from_numpy(items).unsqueeze(1))
        return table.assign(score=scores[:, 0].float().numpy())

    def item_vectors(self, by: str = "learned") -> Tensor | np.ndarray:
        """(n_items, k) float32: the items as the model has learnt them, or their visual features.

        Raises:
            InputError: there are none.

        Example:
            >>> from imgrec_lib import load_dataset, train
            >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
            >>> trained = train("bpr-mf", dataset, factors=8, epochs=2, progress=False)
            >>> trained.item_vectors().shape[0]
            50
        """
        if by == "picture":
            if self.features is None:
                raise InputError(
                    f"{self.title} was given no visual features: ask by 'learned', or open it with pictures=True."
                )
            # Of several sets the one of that name, if there is one.
            return np.ascontiguousarray(self.features.views.get(by, self.features.values))
        sets = self.feature_sets
        if by in sets and by != "learned":
            return np.ascontiguousarray(sets[by])
        if by != "learned":
            raise unknown_name("kind of item vectors", by, ("learned", "picture", *sets))
        if self.learned is None:
            raise InputError(
                f"{self.title} has no vectors of items, for its score is no inner product: ask by 'picture', or open "
                "a model of latent factors."
            )
        return self.learned

    def _lists(
        self, scorer: Scorer, rows: np.ndarray, ids: np.ndarray, owned: Interactions, empty: np.ndarray, choice: _Choice
    ) -> _Lists:
        """The lists of some users of a scorer.

        Args:
            scorer: the scores.
            rows: (n,) users of the scorer and of `owned`.
            ids: (n,) what they are called.
            owned: what they may not be recommended.
            empty: (n,) bool, those of whom no purchase is known: they get what sells most.
            choice: which items are listed.
        """
        found = np.full((len(rows), choice.k), -1, np.int64)
        scores = np.full(found.shape, -np.inf, np.float32)
        for chosen, source in ((~empty, scorer), (empty, _Popularity(self.popularity))):
            if chosen.any():
                found[chosen], scores[chosen] = self._best(source, rows[chosen], owned, choice)
        if empty.any():
            tell(f"of {int(empty.sum()):,} customers no purchase is known: they get the most popular items.")
        return _Lists(ids, found, scores, empty)

    def _table(self, lists: _Lists) -> pd.DataFrame:
        row, place = np.nonzero(lists.items >= 0)
        items = lists.items[row, place]
        columns = {
            "user": _texts(lists.ids).take(row),
            "item": self._item_texts.take(items),
            "rank": place + 1,
            "score": lists.scores[row, place],
        }
        if self.item_names is not None:
            columns["name"] = self._name_texts.take(items)
        columns["by"] = _texts([self.title, POPULARITY]).take(lists.empty[row].astype(np.int64))
        return pd.DataFrame(columns)

    def _best(
        self, scorer: Scorer, rows: np.ndarray, owned: Interactions, choice: _Choice
    ) -> tuple[np.ndarray, np.ndarray]:
        """`top_items` of the choice, of each group its best item.

        For groups, longer and longer lists are made until each holds k groups or all that there is.
        """
        length, groups, ids = choice.k, choice.groups, self.dataset.user_ids
        found, scores = top_items(scorer, rows, owned, length, admissible=choice.admissible, user_ids=ids)
        if groups is None:
            return found, scores
        items, values = np.full_like(found, -1), np.full_like(scores, -np.inf)
        waiting = np.arange(len(rows))
        while True:
            kept = _first_of_each(groups[found]) & (found >= 0)
            enough = (kept.sum(1) >= choice.k) | (found < 0).any(1) | (length >= self.dataset.n_items)
            place = np.cumsum(kept, 1) - 1
            row, column = np.nonzero(kept & (place < choice.k) & enough[:, None])
            target = waiting[row], place[row, column]
            items[target], values[target] = found[row, column], scores[row, column]
            waiting = waiting[~enough]
            if not len(waiting):
                return items, values
            length = min(2 * length, self.dataset.n_items)
            found, scores = top_items(scorer, rows[waiting], owned, length, admissible=choice.admissible, user_ids=ids)

    def _lists_for_baskets(self, baskets: Table, choice: _Choice) -> _Lists:
        """The lists of customers who are new to the model, by what they bought."""
        table = pairs_of(baskets)
        if not isinstance(self.model, Baskets):
            able = [name for name, card in list_models().items() if hasattr(card.build, "score_baskets")]
            raise InputError(
                f"{self.title} cannot score for customers that it was not trained on: train it again with them, or "
                f"take one of {', '.join(able)}."
            )
        ids = table["user"].drop_duplicates().to_numpy()
        row = pd.Index(ids).get_indexer(table["user"])
        item = self.items.get_indexer(pd.Index(table["item"]))
        unknown = int((item < 0).sum())
        if unknown:
            tell(
                f"{unknown:,} of {len(table):,} purchases in the baskets are of items that the catalogue does not "
                "have: they are passed over."
            )
        there = item >= 0
        pairs = np.unique(np.c_[row[there], item[there]], axis=0)
        bought = Interactions.from_pairs(pairs[:, 0], pairs[:, 1], len(ids), self.dataset.n_items)
        owned = self._nothing(len(ids)) if choice.include_owned else bought
        empty = bought.history_lengths == 0
        return self._lists(_BasketScorer(self.model, bought), np.arange(len(ids)), ids, owned, empty, choice)

    def _admissible(
        self,
        items: Iterable[Any] | None = None,
        without: Iterable[Any] = (),
        where: Mapping[str, Any] | None = None,
        where_not: Mapping[str, Any] | None = None,
    ) -> np.ndarray | None:
        without = [without] if isinstance(without, str) else list(without)
        if items is None and not without and not where and not where_not:
            return None
        mask = np.full(self.dataset.n_items, items is None)
        if items is not None:
            mask[positions("item", self.items, items)] = True
        if without:
            mask[positions("item", self.items, without)] = False
        for column, wanted in (where or {}).items():
            mask &= self._having(column, wanted)
        for column, wanted in (where_not or {}).items():
            mask &= ~self._having(column, wanted)
        if not mask.any():
            raise InputError("no item may be recommended by these conditions: leave one of them out.")
        return mask

    def _having(self, column: str, wanted: Any) -> np.ndarray:
        """(n_items,) bool: the items that have one of some values in a column of the item table."""
        if column not in self.dataset.items:
            raise unknown_name("column of the item table", column, map(str, self.dataset.items.columns))
        values = [str(each) for each in (wanted if isinstance(wanted, list | tuple | set) else [wanted])]
        own = self.dataset.items[column].astype(str)
        for value in values:
            if not (own == value).any():
                raise unknown_name(f"value of column {column!r}", value, own.unique()[:50].tolist())
        return own.isin(values).to_numpy()

    def _groups(self) -> np.ndarray:
        groups = self.dataset.groups
        if groups is None:
            raise InputError(
                f"dataset {self.dataset.name!r} does not say which items are variants of one product: add a column "
                "'group' to the item table, or leave one_per_group out."
            )
        return groups

    def _nothing(self, n_users: int) -> Interactions:
        return Interactions(np.zeros(n_users + 1, np.int64), np.empty(0, np.int64), self.dataset.n_items)

    @cached_property
    def _item_texts(self) -> Any:
        return _texts(self.item_ids)

    @cached_property
    def _name_texts(self) -> Any:
        return _texts(self.item_names)

    def _with_names(self, table: pd.DataFrame, items: np.ndarray) -> pd.DataFrame:
        return table if self.item_names is None else table.assign(name=self.item_names[items])


@dataclass(frozen=True)
class _Choice:
    """Which items are listed: k, also owned ones or not, those of a mask (None: all), one of each group (None: any)."""

    k: int
    include_owned: bool
    admissible: np.ndarray | None
    groups: np.ndarray | None


@dataclass(frozen=True)
class _Lists:
    """The best items of some users.

    Attributes:
        ids: (n,) whose lists they are.
        items: (n, k) int64, best first; -1 behind the end of a list.
        scores: (n, k) float32.
        empty: (n,) bool, those who get what sells most, for no purchase of theirs is known.
    """

    ids: np.ndarray
    items: np.ndarray
    scores: np.ndarray
    empty: np.ndarray


def _texts(values: Any) -> Any:
    """Texts as pandas keeps them in a column, of which it takes many at the cost of numbers."""
    return pd.array(values, dtype="str")


def _first_of_each(groups: np.ndarray) -> np.ndarray:
    """(B, n) numbers -> (B, n) bool: the places at which a number comes first in its row."""
    order = groups.argsort(1, kind="stable")
    ordered = np.take_along_axis(groups, order, 1)
    first = np.ones(groups.shape, bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    places = np.empty_like(first)
    np.put_along_axis(places, order, first, 1)
    return places


@dataclass(frozen=True)
class _BasketScorer:
    """The scores of customers of whom a basket is known."""

    model: Baskets
    baskets: Interactions

    def block(self, users: Tensor) -> Tensor:
        chosen = users.numpy()
        parts = []
        for start in range(0, len(chosen), BASKETS_AT_ONCE):
            rows = chosen[start : start + BASKETS_AT_ONCE]
            lengths = self.baskets.history_lengths[rows]
            items = np.concatenate([self.baskets.of(row) for row in rows])
            some = Interactions(np.r_[0, lengths.cumsum()], items, self.baskets.n_items)
            parts.append(self.model.score_baskets(some))
        return torch.cat(parts)

    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        return self.block(users).gather(1, items)


@dataclass(frozen=True)
class _Popularity:
    """The same scores for everybody: how often each item was bought."""

    counts: np.ndarray

    def block(self, users: Tensor) -> Tensor:
        return torch.from_numpy(self.counts.astype(np.float32)).expand(len(users), -1).clone()

    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        return self.block(users).gather(1, items)


def rows_for(
    trained: Trained, users: Iterable[Any] | None = None, baskets: Table | None = None, **conditions: Any
) -> list[dict[str, Any]]:
    """The rows that `Trained.recommend` has for one customer, but for the column `user`, as plain values.

    Args:
        trained: the model.
        users, baskets: of one customer, either.
        conditions: as there.
    """
    # A table of these few rows would take longer than to find them.
    choice = trained._choice(**conditions)
    lists = trained._lists_for(users, choice) if baskets is None else trained._lists_for_baskets(baskets, choice)
    names, by = trained.item_names, POPULARITY if lists.empty[0] else trained.title
    return [
        {
            "item": str(trained.item_ids[item]),
            "rank": rank,
            "score": score,
            **({} if names is None else {"name": names[item]}),
            "by": by,
        }
        for rank, (item, score) in enumerate(zip(lists.items[0].tolist(), lists.scores[0].tolist(), strict=True), 1)
        if item >= 0
    ]


def recommend(
    model: Recommender, dataset: Dataset, users: Iterable[Any] | None = None, k: Count = 10, **conditions: Any
) -> pd.DataFrame:
    """The k best items of each user, in the catalogue's own ids: `Trained.recommend` of a model at hand.

    Args:
        model: the trained model.
        dataset: what it was trained on.
        users: ids; all users where None.
        k: length of a list.
        conditions: see `Trained.recommend`.

    Example:
        >>> from imgrec_lib import build_model, load_dataset, recommend
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> lists = recommend(build_model("poprank", dataset.training_data()), dataset, ["user-0007"], k=3)
        >>> lists["rank"].tolist()
        [1, 2, 3]
    """
    return Trained(model.eval(), dataset, None, None, type(model).__name__).recommend(users, k, **conditions)


def train(
    model: str,
    dataset: Dataset,
    *,
    features: OwnFeatures = None,
    profile: str = "default",
    seed: CountOrNone = 0,
    device: DeviceName = "cpu",
    progress: bool = True,
    **parameters: Any,
) -> Trained:
    """Train a model in memory; `train_run` also tests it and leaves a record.

    Args:
        model: a name of `list_models()`.
        dataset: what to train on.
        features: visual features; extracted with the default backbone where the model uses some and none are given.
        profile, parameters: see `resolve_profile`.
        seed: seeds initial weights and batches.
        device: "cpu", "cuda", ...
        progress: show progress bars.

    Returns:
        The trained model, on the CPU.

    Raises:
        InputError: see `build_model` and `fit`.

    Example:
        >>> from imgrec_lib import load_dataset, train
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> trained = train("bpr-mf", dataset, factors=8, epochs=2, progress=False)
        >>> trained.recommend(["user-0007"], k=5).shape
        (5, 6)
    """
    card = model_card(model)
    if features is None and "features" in card.uses and dataset.images is not None:
        features = picture_features(dataset, device=device, progress=progress)
    data = dataset.training_data(features if "features" in card.uses else None)
    built = build_model(model, data, profile=profile, seed=seed, **parameters)
    fit(built, data, ValidationMetrics(dataset, device=device), seed=seed, device=device, progress=progress)
    return Trained(built.to("cpu").eval(), dataset, features, None, card.title)


def open_trained(
    run: Run | Path | str, *, root: Moved = None, pictures: bool = False, progress: bool = True
) -> Trained:
    """The trained model of a finished run, on the CPU.

    Args:
        run: the run or its folder.
        root: where its data lie now, if they were moved: see `Request.at`.
        pictures: load the features of the pictures also for a model that uses none, to compare items by them.
        progress: show progress bars while pictures and features are prepared.

    Raises:
        InputError: no finished run, its data are not where they were, or they are other data.

    Example:
        >>> from pathlib import Path
        >>> from imgrec_lib import Request, open_trained, train_run
        >>> tiny = {"n_users": 40, "n_items": 50, "image_size": 32}
        >>> request = Request("poprank", dataset="wardrobe", dataset_options=tiny)
        >>> dataset, features = request.load(progress=False)
        >>> run = train_run(dataset, request, Path("runs/asked"), progress=False)
        >>> open_trained(Path("runs/asked"), progress=False).title
        'PopRank'
    """
    opened = run if isinstance(run, Run) else open_run(Path(run))
    if opened.record.stage == "lists":
        raise InputError(f"run {opened.name} holds the lists of {opened.record.title}, and no model: name another run.")
    check_roots(root, [opened])
    return Trained.of(opened, *Inputs(root, progress).of(opened, pictures=pictures))

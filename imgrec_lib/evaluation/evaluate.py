"""Metrics of a model on held-out items, for the test and for choosing by validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from annotated_types import MinLen

from imgrec_lib.data.dataset import Dataset, HeldOut, Interactions
from imgrec_lib.devices import Device
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation.lists import list_metrics
from imgrec_lib.evaluation.metrics import (
    CUTOFFS,
    Cutoffs,
    auc,
    check_cutoffs,
    check_metric,
    mean_by_user,
    summary,
    user_values,
)
from imgrec_lib.evaluation.protocols import PROTOCOLS, evaluation_protocol, held_out, negative_lists, owned_items
from imgrec_lib.evaluation.ranking import BLOCK_BYTES, Counts, rank_held_out, scorer_of
from imgrec_lib.models.base import Recommender, Scorer
from imgrec_lib.options import Count, Vectors


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        part: "test" or "validation".
        seed: seed of the negative lists.
        metrics: by protocol, then by metric: those of `metrics.user_values` ("auc", "hr@10", "recall@20", ...) as means
            over users, "users" and "users_without_candidates"; then the same, prefixed "cold_", over the users'
            held-out items without training interaction, and prefixed "new_", over the users without. Under `exact`
            also the metrics of all users' lists ("coverage@10", ...: `lists.list_metrics`). A mean over no user is
            None. Ready for JSON.
        per_user: one row a held-out item, so one a user where each has one: `user`, in ascending order, and `item`
            (indices), `history_length` (training interactions of the user), `item_popularity` (those of the item),
            `cold`, `variant` where the catalogue has groups (`Dataset.bought_variants`), and for each protocol
            `<protocol>/higher`, `<protocol>/tied` and `<protocol>/candidates`, from which `user_metrics` gives every
            metric.
        lists: what is recommended to each user of `per_user`, in their order, where `exact` was asked for, else None:
            (n, largest cut-off) int64 items, best first, of equal scores the lower index first; -1 past the end. An
            item may be recommended unless it is the user's training item or, in a test, validation item.
    """

    part: str
    seed: int
    metrics: dict[str, dict[str, float | int | None]]
    per_user: pd.DataFrame
    lists: np.ndarray | None = None


def evaluate(
    model: Recommender | Scorer,
    dataset: Dataset,
    *,
    protocols: Annotated[Sequence[str], MinLen(1)] = tuple(PROTOCOLS),
    seed: int = 0,
    part: str = "test",
    device: Device = "cpu",
    block_bytes: Count = BLOCK_BYTES,
    cutoffs: Cutoffs = CUTOFFS,
    features: Vectors | None = None,
) -> Evaluation:
    """Evaluate a model by leave-one-out ranking.

    `exact` ranks a test item among all items but the user's training, validation and test items; a validation item
    among all but the user's training and validation items, so that its metrics tell nothing of the test items. Of
    several held-out items of a user none is a candidate against which another is ranked (under `imgrec-100` all are, as
    anything may be drawn). If `exact` is asked for, the sampled protocols read their scores from the same blocks; else
    only the drawn items are scored.

    Args:
        model: the model (which serves each user at the time of the held-out interaction, where times are known), or
            a scorer.
        dataset: the dataset.
        protocols: names from `PROTOCOLS`.
        seed: seed of the negative lists.
        part: the held-out items that are ranked, "test" or "validation". Choose a model by `ValidationAUC`, which
            cannot see the test items.
        device: where the model lives.
        block_bytes: size of a block of scores; the result does not depend on it.
        cutoffs: lengths k of the lists in HR@k, NDCG@k, coverage@k, ...
        features: (n_items, n_features) float32 visual features, by which the lists' visual diversity is measured; None
            leaves it out.

    Raises:
        InputError: unknown protocol or part, no user with a held-out item, a cut-off beyond the catalogue, or scores
            that are not finite.

    Example:
        >>> from imgrec_lib import build_model, evaluate, load_dataset
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> found = evaluate(build_model("poprank", dataset.training_data()), dataset, protocols=["exact"])
        >>> found.metrics["exact"]["users"]
        40
        >>> found.metrics["exact"]["auc"] > 0.5
        True
    """
    check_cutoffs(cutoffs, dataset.n_items)
    held = held_out(dataset, part)
    lists = {
        name: None if evaluation_protocol(name).draws is None else negative_lists(dataset, name, seed, part)
        for name in protocols
    }
    known = owned_items(dataset.train, *([dataset.validation] if part == "test" else []))
    owned = owned_items(known, held)
    scorer = scorer_of(model, held.times, device)
    listed = known if "exact" in protocols else None
    counts, recommended = rank_held_out(
        scorer, dataset.user_ids, held, owned, lists, device, block_bytes, listed, max(cutoffs)
    )
    metrics = {name: metrics_of(count, held, dataset, cutoffs) for name, count in counts.items()}
    if recommended is not None:
        categories = None if dataset.categories is None else dataset.categories[0]
        metrics["exact"] |= list_metrics(recommended, dataset.train, cutoffs, categories, features)
    return Evaluation(part, seed, metrics, per_user_table(counts, held, dataset), recommended)


def metrics_of(
    counts: Counts, held: HeldOut, dataset: Dataset, cutoffs: Sequence[int]
) -> dict[str, float | int | None]:
    """`metrics.summary` of all held-out items, of the cold ones ("cold_...") and of those of new users ("new_...")."""
    metrics = summary(*counts, held.users, cutoffs)
    cold = dataset.train.popularity[held.flat] == 0
    new = dataset.train.history_lengths[held.users] == 0
    for kind, chosen in (("cold", cold), ("new", new)):
        some = summary(*Counts(*(values[chosen] for values in counts)), held.users[chosen], cutoffs)
        metrics |= {f"{kind}_{key}": value for key, value in some.items()}
    return metrics


def per_user_table(counts: Mapping[str, Counts], held: HeldOut, dataset: Dataset) -> pd.DataFrame:
    """`Evaluation.per_user`, of the counts by protocol."""
    popularity = dataset.train.popularity[held.flat]
    columns: dict[str, Any] = {
        "user": held.users,
        "item": held.flat,
        "history_length": dataset.train.history_lengths[held.users],
        "item_popularity": popularity,
        "cold": popularity == 0,
    }
    variants = dataset.bought_variants(held)
    if variants is not None:
        columns["variant"] = variants
    for name, count in counts.items():
        columns |= {f"{name}/{kind}": values for kind, values in count._asdict().items()}
    return pd.DataFrame(columns)


class _Validation:
    """Ranks the validation items: what `ValidationMetrics` and `ValidationAUC` share."""

    def __init__(self, dataset: Dataset, device: Device = "cpu", block_bytes: Count = BLOCK_BYTES) -> None:
        self.device, self.block_bytes = torch.device(device), block_bytes
        self.user_ids = dataset.user_ids
        self.held = dataset.validation
        self.owned = owned_items(dataset.train, self.held)
        if not len(self.held):
            raise InputError(f"no user of dataset {dataset.name!r} has a validation item: hold some out.")

    def ranked(self, model: Recommender) -> HeldOut:
        """The validation items that are ranked: those of all users, or of as many as the model's settings ask for."""
        users = np.unique(self.held.users)
        wanted = max((phase.validation_users for phase in model.phases), default=0)
        if wanted in range(1, len(users)):
            drawn = np.random.PCG64(0).random_raw(len(users)).argsort(kind="stable")[:wanted]
            chosen = np.isin(self.held.users, users[drawn])
            pairs = self.held.users[chosen], self.held.flat[chosen], self.held.n_users, self.owned.n_items
            return HeldOut(Interactions.from_pairs(*pairs), self.held.times)
        return self.held

    def counts(self, model: Recommender) -> tuple[Counts, np.ndarray]:
        """The counts of the validation items, and the user of each.

        Raises:
            InputError: a score is not finite.
        """
        held = self.ranked(model)
        counts, _ = rank_held_out(
            scorer_of(model, held.times, self.device), self.user_ids, held, self.owned, {"exact": None}, self.device,
            self.block_bytes,
        )  # fmt: skip
        return counts["exact"], held.users


class ValidationAUC(_Validation):
    """The number by which models are selected unless another is asked for: mean exact mid-rank AUC.

    The candidates are all items but the user's training and validation items. The test items are
    candidates like any other: this object keeps no reference to them and so cannot tell which they are.

    Where the model's settings ask for fewer users than have a validation item (`TrainSettings.validation_users`), so
    many of them are drawn, by PCG64 with the seed 0: the same for every model, seed and epoch.

    Args:
        dataset: the dataset.
        device: where the models to be validated live.
        block_bytes: see `evaluate`.

    Raises:
        InputError: no user has a validation item.

    Example:
        >>> from imgrec_lib import ValidationAUC, build_model, load_dataset
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> ValidationAUC(dataset)(build_model("poprank", dataset.training_data())) > 0.5
        True
    """

    def __call__(self, model: Recommender) -> float:
        """Validation AUC of a model; NaN if no user has a candidate.

        Raises:
            InputError: a score is not finite.
        """
        counts, users = self.counts(model)
        values = mean_by_user(auc(*counts), users)
        ranked = ~np.isnan(values)
        return float(np.mean(values[ranked])) if ranked.any() else math.nan


class ValidationMetrics(_Validation):
    """Every metric by which a model may be selected (`TrainSettings.choose_by`), from one exact ranking.

    Candidates, arguments and errors as in `ValidationAUC`.

    Example:
        >>> from imgrec_lib import ValidationMetrics, build_model, load_dataset
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> metrics = ValidationMetrics(dataset)(build_model("poprank", dataset.training_data()))
        >>> 0 < metrics["ndcg@10"] <= metrics["hr@10"]
        True
    """

    def __call__(self, model: Recommender) -> dict[str, float]:
        """Means over users of the metrics of `metrics.user_values`, at its cut-offs and that which the model asks for.

        Returns:
            By name; NaN if no user has a candidate.

        Raises:
            InputError: a score is not finite, or the model's settings name an unknown metric or a list longer than the
                catalogue.
        """
        asked = {check_metric(phase.choose_by, self.owned.n_items) for phase in model.phases}
        cutoffs = tuple(dict.fromkeys([*CUTOFFS, *filter(None, asked)]))
        counts, users = self.counts(model)
        values = user_values(*counts, users, cutoffs)
        ranked = ~np.isnan(values["auc"])
        return {name: float(np.mean(each[ranked])) if ranked.any() else math.nan for name, each in values.items()}


def user_metrics(per_user: pd.DataFrame, protocol: str = "exact", cutoffs: Sequence[Count] = CUTOFFS) -> pd.DataFrame:
    """Every metric of every user under one protocol, for statistics over users.

    Args:
        per_user: `Evaluation.per_user`.
        protocol: one of the evaluated protocols.
        cutoffs: lengths of the list; any, whatever was asked for when the users were evaluated.

    Returns:
        One row a user, by the index of the user's first row in `per_user`; the columns of `metrics.user_values` ("auc",
        "hr@10", ...); NaN for a user without candidates.

    Raises:
        InputError: the protocol was not evaluated.
    """
    users = per_user["user"]
    values = user_values(*counts_of(per_user, protocol), users.to_numpy(), cutoffs)
    return pd.DataFrame(values, index=per_user.index[~users.duplicated()])


def counts_of(per_user: pd.DataFrame, protocol: str) -> Counts:
    columns = [f"{protocol}/{kind}" for kind in Counts._fields]
    if not set(columns) <= set(per_user.columns):
        known = sorted({str(c).partition("/")[0] for c in per_user.columns if "/" in str(c)})
        raise InputError(f"protocol {protocol!r} was not evaluated; these were: {', '.join(known)}.")
    return Counts(*(per_user[c].to_numpy() for c in columns))

"""Small training data for the tests of the models: random, with everything that any model may need."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from imgrec_lib.data.dataset import Columns, Dataset, HeldOut, Interactions, TrainingData
from imgrec_lib.data.images import ImageStore
from imgrec_lib.evaluation import scorer_of, top_items
from imgrec_lib.models.base import Recommender, Scorer

# Primes that no hidden size in the tests equals, so that a dimension of a weight says what it counts.
N_USERS, N_ITEMS, N_FEATURES, N_CATEGORIES = 23, 37, 11, 5
DAY = 86_400
START = 1_600_000_000


def toy_interactions(
    n_users: int = N_USERS, n_items: int = N_ITEMS, low: int = 2, high: int = 9, seed: int = 0
) -> Interactions:
    """Each user has `low` to `high` - 1 random items, at random seconds of one year."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(low, high, n_users)
    items = np.concatenate([rng.choice(n_items, size=n, replace=False) for n in lengths])
    times = START + rng.integers(0, 365 * DAY, len(items))
    return Interactions.from_pairs(np.repeat(np.arange(n_users), lengths), items, n_users, n_items, times)


def toy_data(seed: int = 0, n_categories: int = N_CATEGORIES, image_size: int = 8) -> TrainingData:
    """Random data with all that a model can ask for; item 0 has no picture (zero features)."""
    rng = np.random.default_rng(seed + 1)
    features = np.maximum(rng.normal(size=(N_ITEMS, N_FEATURES)), 0).astype(np.float32)
    features[0] = 0
    pixels = rng.integers(0, 256, (N_ITEMS, image_size, image_size, 3), dtype=np.uint8)
    return TrainingData(
        interactions=toy_interactions(seed=seed),
        categories=np.concatenate([np.arange(n_categories), rng.integers(0, n_categories, N_ITEMS - n_categories)]),
        n_categories=n_categories,
        groups=np.arange(N_ITEMS) % 13,
        attributes=pd.DataFrame(
            {
                "colour": rng.choice(["black", "red", "white"], N_ITEMS),
                "pattern": rng.choice(["plain", "striped"], N_ITEMS),
            }
        ),
        features=features,
        images=ImageStore.from_array(pixels, np.arange(N_ITEMS) > 0),
    )


def planted_dataset(
    n_users: int = 150, n_items: int = 90, seed: int = 0, history: int = 12
) -> tuple[Dataset, np.ndarray]:
    """Users who buy by a taste of rank 3 that shows in the features and the categories, with one test and one
    validation item each, and the features (n_items, 12)."""
    rng = np.random.default_rng(seed)
    tastes, looks = rng.normal(size=(n_users, 3)), rng.normal(size=(n_items, 3))
    utility = 2.5 * tastes @ looks.T + 0.5 * rng.normal(size=n_items) + rng.gumbel(size=(n_users, n_items))
    bought = np.argsort(-utility, axis=1)[:, :history]
    for row in bought:
        rng.shuffle(row)
    train = bought[:, 2:]
    moments = START + np.sort(rng.integers(0, 365 * DAY, (n_users, history)), axis=1)
    items = pd.DataFrame(
        {
            Columns.ITEM: [f"i{i}" for i in range(n_items)],
            Columns.CATEGORY: np.where(looks[:, 0] > 0, "tops", "bottoms"),
            Columns.GROUP: [f"g{i // 2}" for i in range(n_items)],
            "colour": np.where(looks[:, 1] > 0, "red", "black"),
            "pattern": np.where(looks[:, 2] > 0, "plain", "striped"),
        }
    )
    dataset = Dataset(
        name="planted",
        user_ids=np.array([f"u{u}" for u in range(n_users)]),
        items=items,
        train=Interactions.from_pairs(
            np.repeat(np.arange(n_users), history - 2), train.ravel(), n_users, n_items, moments[:, :-2].ravel()
        ),
        validation=HeldOut(bought[:, 0], moments[:, -2]),
        test=HeldOut(bought[:, 1], moments[:, -1]),
    )
    features = np.maximum(looks @ rng.normal(size=(3, 12)) + 0.2 * rng.normal(size=(n_items, 12)), 0)
    return dataset, features.astype(np.float32)


def exact_auc(scores: np.ndarray, dataset: Dataset, held_out: np.ndarray) -> float:
    """Mean mid-rank AUC of one held-out item a user among all items but its other known ones, by plain loops.

    Args:
        scores: (n_users, n_items).
        dataset: gives the items that are no candidates.
        held_out: (n_users,) the item to be ranked.
    """
    values = []
    for user, item in enumerate(held_out):
        others = np.ones(dataset.n_items, dtype=bool)
        others[dataset.train.of(user)] = False
        others[[dataset.validation.items[user], dataset.test.items[user]]] = False
        negatives = scores[user, others]
        values.append(np.mean(scores[user, item] > negatives) + 0.5 * np.mean(scores[user, item] == negatives))
    return float(np.mean(values))


def best_items(
    model: Recommender | Scorer,
    data: Dataset | TrainingData,
    users: Iterable[int],
    k: int = 10,
    exclude_seen: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """`top_items` of a model at no particular time, without the users' training items or with them."""
    train = data.train if isinstance(data, Dataset) else data.interactions
    nothing = Interactions(np.zeros(train.n_users + 1, np.int64), np.empty(0, np.int64), train.n_items)
    ids = data.user_ids if isinstance(data, Dataset) else None
    owned = train if exclude_seen else nothing
    return top_items(scorer_of(model, None), np.array(list(users), np.int64), owned, k, user_ids=ids)

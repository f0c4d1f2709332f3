"""What RecTools says of a small case: accuracy with several held-out items, and metrics of lists.

RecTools wants an older pandas than this project. In an environment of its own (`pip install rectools==0.19.0`):
`python benchmarks/peers/metrics.py > tests/rectools.json`. The input is in the file too, so that
tests/evaluation/test_lists.py computes the same metrics from it.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from rectools import Columns, metrics
from rectools.metrics.distances import PairwiseDistanceCalculator, PairwiseHammingDistanceCalculator

N_USERS, N_ITEMS, LONGEST, CUTOFFS = 24, 40, 10, (3, 10)


class CosineDistance(PairwiseDistanceCalculator):
    """1 - cosine of the items' features."""

    def __init__(self, features: np.ndarray) -> None:
        self.features = features / np.linalg.norm(features, axis=1, keepdims=True)

    def _get_distances_for_item_pairs(self, items_0: np.ndarray, items_1: np.ndarray) -> np.ndarray:
        return 1 - (self.features[np.asarray(items_0)] * self.features[np.asarray(items_1)]).sum(1)


def main() -> None:
    rng = np.random.default_rng(7)
    scores = rng.permuted(np.tile(np.arange(N_ITEMS), (N_USERS, 1)), axis=1)
    categories = rng.integers(0, 5, N_ITEMS)
    features = np.abs(rng.standard_normal((N_ITEMS, 6))).round(3)
    train, held = [], []
    for _ in range(N_USERS):
        # Every item has a buyer but the last three: RecTools gives such items no novelty.
        drawn = rng.permutation(N_ITEMS - 3)[: rng.integers(6, 14)]
        held.append(sorted(drawn[: rng.integers(1, 5)].tolist()))
        train.append(sorted(set(drawn.tolist()) - set(held[-1])))
    train[0] = sorted(set(range(N_ITEMS - 3)) - set(held[0]))[:30]
    train[1] = sorted((set(train[1]) | set(range(30, N_ITEMS - 3))) - set(held[1]))
    bought = {item for items in train for item in items}
    candidates = [[i for i in np.argsort(-scores[u]).tolist() if i in bought - set(train[u])] for u in range(N_USERS)]
    lists = [items[:LONGEST] for items in candidates]

    def table(items: list[list[int]]) -> pd.DataFrame:
        rows = [(user, item, rank + 1) for user in range(N_USERS) for rank, item in enumerate(items[user])]
        return pd.DataFrame(rows, columns=[Columns.User, Columns.Item, Columns.Rank])

    reco, interactions, previous = table(lists), table(held), table(train)
    by_category = PairwiseHammingDistanceCalculator(pd.DataFrame({"category": categories}))
    found: dict[str, list[float] | float] = {}
    for k in CUTOFFS:
        accuracy = {
            "hr": metrics.HitRate(k),
            "recall": metrics.Recall(k),
            "precision": metrics.Precision(k),
            "mrr": metrics.MRR(k),
            "map": metrics.MAP(k),
            "ndcg": metrics.NDCG(k, divide_by_achievable=True),
        }
        for name, metric in accuracy.items():
            found[f"{name}@{k}"] = metric.calc_per_user(reco, interactions).sort_index().tolist()
        novelty = metrics.MeanInvUserFreq(k).calc_per_user(reco, previous)
        found[f"novelty@{k}"] = novelty.sort_index().tolist()
        popularity = metrics.AvgRecPopularity(k).calc_per_user(reco, previous)
        found[f"popularity@{k}"] = popularity.sort_index().tolist()
        for name, distance in (("category_diversity", by_category), ("visual_diversity", CosineDistance(features))):
            found[f"{name}@{k}"] = metrics.IntraListDiversity(k, distance).calc_per_user(reco).sort_index().tolist()
        found[f"coverage@{k}"] = metrics.CatalogCoverage(k, normalize=True).calc(reco, range(N_ITEMS))
    case = {
        "n_items": N_ITEMS, "scores": scores.tolist(), "train": train, "held": held, "candidates": candidates,
        "lists": lists, "categories": categories.tolist(), "features": features.tolist(), "rectools": found,
    }  # fmt: skip
    print(json.dumps(case))


if __name__ == "__main__":
    main()

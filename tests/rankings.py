"""Scorers that hold what they answer, datasets drawn at random, and the metrics of one list by their definitions."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from imgrec_lib.data.dataset import Dataset, HeldOut, Interactions
from imgrec_lib.models.base import Recommender, Scorer


class Table:
    """A scorer that holds all scores."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = torch.as_tensor(scores, dtype=torch.float32)

    def block(self, users: Tensor) -> Tensor:
        return self.scores[users]

    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        return self.scores[users].gather(1, items)


class Model(Recommender):
    """A model around a scorer, which notes how it was asked."""

    def __init__(self, inner: Scorer) -> None:
        super().__init__()
        self.inner = inner
        self.asked: list[tuple[bool, Tensor | None]] = []

    def scorer(self, times: Tensor | None = None) -> Scorer:
        self.asked.append((self.training, times))
        return self.inner


def make(n_users: int, n_items: int, seed: int = 0, missing: float = 0.2) -> Dataset:
    """Random histories; some users lack a validation or a test item, one has no training item."""
    rng = np.random.default_rng(seed)
    users, items, held = [], [], np.full((2, n_users), -1)
    for user in range(n_users):
        drawn = rng.permutation(n_items)[: rng.integers(2, max(3, n_items // 2))] if n_items > 1 else np.array([0])
        for part in range(min(2, len(drawn))):
            held[part, user] = drawn[part] if rng.random() >= missing else -1
        history = drawn[2:] if user else drawn[:0]
        users += [user] * len(history)
        items += list(history)
    held[:, -1] = held[:, -1] if (held[:, -1] >= 0).all() else [0, n_items - 1]
    keep = [i not in held[:, u] for u, i in zip(users, items, strict=True)]
    return Dataset(
        "random",
        np.array([f"u{u}" for u in range(n_users)]),
        pd.DataFrame({"item": [f"i{i}" for i in range(n_items)]}),
        Interactions.from_pairs(np.array(users, int)[keep], np.array(items, int)[keep], n_users, n_items),
        HeldOut(held[0]),
        HeldOut(held[1]),
    )


def coarse(dataset: Dataset, seed: int = 0, levels: int = 6) -> np.ndarray:
    """Scores with many ties."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, levels, (dataset.n_users, dataset.n_items)).astype(np.float32)


def by_definition(relevant: list[bool], k: int) -> dict[str, float]:
    """The metrics of one list without ties, best first, as the textbooks write them."""
    top, n = relevant[:k], sum(relevant)
    hits = [place for place, hit in enumerate(top) if hit]
    gain = sum(1 / math.log2(place + 2) for place in hits)
    return {
        "hr": float(bool(hits)),
        "recall": len(hits) / n,
        "precision": len(hits) / k,
        "mrr": 1 / (hits[0] + 1) if hits else 0.0,
        "map": sum(sum(top[: place + 1]) / (place + 1) for place in hits) / min(k, n),
        "ndcg": gain / sum(1 / math.log2(place + 2) for place in range(min(k, n))),
    }

"""Scores that add up over what a user has bought: item-to-item weights and the scorer that sums them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from imgrec_lib.data.dataset import Interactions
from imgrec_lib.models.parts.sparse_tensor import sparse_tensor


def purchase_matrix(interactions: Interactions) -> sparse.csr_matrix:
    """(n_users, n_items) float32: 1 where the user has the item."""
    ones = np.ones(len(interactions), np.float32)
    shape = interactions.n_users, interactions.n_items
    return sparse.csr_matrix((ones, interactions.items, interactions.indptr), shape=shape)


def log_popularity(interactions: Interactions) -> Tensor:
    """(n_items,) float32: ln(1 + number of interactions) of each item."""
    return torch.as_tensor(np.log1p(interactions.popularity), dtype=torch.float32)


class ItemWeights(Protocol):
    """What each purchase adds to the score of each item: a matrix w of n purchasable items by n_items candidates."""

    def add_sums(self, purchases: sparse.csr_matrix, items: slice, out: Tensor) -> None:
        """Add the purchases' weights to scores, in place.

        Args:
            purchases: (B, n) float32.
            items: the c candidates in question.
            out: (B, c) float32 on the CPU: out[b, i] grows by the sum over j of purchases[b, j] * w[j, i].
        """
        ...

    def between(self, purchases: np.ndarray, items: np.ndarray) -> Tensor:
        """Single weights: (P,) int64 purchases and (C,) int64 candidates -> (P, C) float32."""
        ...


@dataclass(frozen=True)
class SparseWeights:
    """Weights of which most are 0.

    Attributes:
        values: (n, n_items) float32.
    """

    values: sparse.csc_matrix

    def add_sums(self, purchases: sparse.csr_matrix, items: slice, out: Tensor) -> None:
        out += torch.from_numpy((purchases @ self.values[:, items]).toarray())

    def between(self, purchases: np.ndarray, items: np.ndarray) -> Tensor:
        return torch.from_numpy(self.values[:, items][purchases].toarray())


@dataclass(frozen=True)
class DenseWeights:
    """Weights of which few are 0.

    Attributes:
        values: (n, n_items) float32 on the CPU.
    """

    values: Tensor

    def add_sums(self, purchases: sparse.csr_matrix, items: slice, out: Tensor) -> None:
        # The product reads the columns of a tile where they are; other ways to sum rows would copy them first.
        torch.addmm(out, sparse_tensor(purchases), self.values[:, items], out=out)

    def between(self, purchases: np.ndarray, items: np.ndarray) -> Tensor:
        return self.values[torch.from_numpy(purchases)][:, torch.from_numpy(items)]


@dataclass(frozen=True)
class PurchaseSum:
    """s(u, i) = offset[i] + the sum over u's purchases j of all weights[j, i].

    The cost follows the users' histories. It is computed on the CPU, whatever the device of the users.

    Attributes:
        purchases: (n_users, n) float32.
        weights: what is summed.
        offset: (n_items,) float32 on the CPU.
    """

    purchases: sparse.csr_matrix
    weights: Sequence[ItemWeights]
    offset: Tensor

    def block(self, users: Tensor) -> Tensor:
        return self.tile(users, slice(None))

    def tile(self, users: Tensor, items: slice, out: Tensor | None = None) -> Tensor:
        purchases, offset = self.purchases[users.cpu().numpy()], self.offset[items]
        scores = out if out is not None and out.device.type == "cpu" else torch.empty(len(users), len(offset))
        scores.copy_(offset.expand_as(scores))
        for weights in self.weights:
            weights.add_sums(purchases, items, scores)
        return scores.to(users.device)

    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        return self.block(users).gather(1, items)


class BasketSum(nn.Module):
    """x = start + n^-power * the sum of the vectors of a basket's n items, see `models.base.BasketTower`.

    Args:
        vectors: (n_items, k) float32, what each item brings.
        start: (k,) what all users have in common.
        power: 1 for a mean, 0.5 for a sum that grows with the root of n.
    """

    def __init__(self, vectors: Tensor, start: Tensor, power: float) -> None:
        super().__init__()
        # The last row is that of -1, of no item.
        self.vectors, self.start, self.power = torch.cat([vectors, torch.zeros_like(vectors[:1])]), start, power

    def forward(self, baskets: Tensor) -> Tensor:
        there = baskets >= 0
        rows = F.embedding(torch.where(there, baskets, self.vectors.shape[0] - 1), self.vectors)
        return self.start + rows.sum(1) * there.sum(1, keepdim=True).clamp(min=1).float() ** -self.power

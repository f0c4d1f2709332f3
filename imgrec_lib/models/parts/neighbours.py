"""Item-to-item relations of which most are zero, as a part of a score that is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from imgrec_lib.models.parts.softmax import Entries

ROWS = 1024
"""Items whose cosines with all items are in memory at a time."""


class Neighbours(nn.Module):
    """How each item is related to some others, in several respects.

    Args:
        relations: (n, n) matrices; row j says what a purchase of item j adds to the other items. None is negative.

    Attributes:
        values: (m, R) float32: what is stored for the m related pairs, one column a relation.
    """

    indptr: Tensor
    items: Tensor
    keys: Tensor
    values: Tensor

    def __init__(self, relations: Sequence[sparse.csr_matrix]) -> None:
        super().__init__()
        n = relations[0].shape[0]
        union = sum(relations[1:], start=relations[0]).tocsr()
        union.sort_indices()
        row = np.repeat(np.arange(n), np.diff(union.indptr))
        columns = [np.asarray(each.tocsr()[row, union.indices], dtype=np.float32).ravel() for each in relations]
        self.register_buffer("indptr", torch.as_tensor(union.indptr, dtype=torch.int64), persistent=False)
        self.register_buffer("items", torch.as_tensor(union.indices, dtype=torch.int64), persistent=False)
        self.register_buffer("keys", torch.as_tensor(row * n + union.indices, dtype=torch.int64), persistent=False)
        self.register_buffer("values", torch.as_tensor(np.stack(columns, 1)), persistent=False)

    @property
    def n_items(self) -> int:
        return len(self.indptr) - 1

    def find(self, purchases: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Where pairs are stored: two (P,) int64 -> (P,) int64 places, and (P,) bool whether they are stored at all."""
        wanted = purchases * self.n_items + items
        place = torch.searchsorted(self.keys, wanted).clamp(max=max(len(self.keys) - 1, 0))
        if not len(self.keys):
            return place, torch.zeros_like(wanted, dtype=torch.bool)
        return place, self.keys[place] == wanted

    def spread(self, rows: Tensor, purchases: Tensor, weights: Tensor) -> Entries:
        """What purchases add to all items that they are related to.

        Args:
            rows, purchases: (P,) int64: who bought, and which item.
            weights: (R,) one for each relation.

        Returns:
            One for each purchase and each item that it is related to.
        """
        start, end = self.indptr[purchases], self.indptr[purchases + 1]
        lengths = end - start
        shift = torch.repeat_interleave(start - (lengths.cumsum(0) - lengths), lengths)
        place = shift + torch.arange(len(shift), device=shift.device)
        return Entries(torch.repeat_interleave(rows, lengths), self.items[place], (self.values @ weights)[place])

    def weighted(self, weights: Tensor) -> sparse.csr_matrix:
        """The relations in one: (n, n), for a scorer on the CPU."""
        values = (self.values @ weights).float().cpu().numpy()
        return sparse.csr_matrix(
            (values, self.items.cpu().numpy(), self.indptr.cpu().numpy()), shape=(self.n_items, self.n_items)
        )


def whitening(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean m of features, and a matrix M such that (f - m) M has no direction of large variance.

    With the covariance Q diag(l) Q^T, M = Q diag(l + mean of l)^(-1/2): directions that vary more than most are shrunk
    to the size of the others, which are left nearly as they are. In the features of a network trained to name objects
    the former tell kinds of garments apart, the latter garments of a kind.

    Args:
        features: (n, f) float32; rows of zeros do not count.

    Returns:
        (f,) and (f, f) float32.
    """
    seen = features[features.any(1)]
    if not len(seen):
        return torch.zeros(features.shape[1]), torch.eye(features.shape[1])
    mean = seen.mean(0)
    centred = (seen - mean).double()
    values, directions = torch.linalg.eigh(centred.T @ centred / len(seen))
    values = values.clamp(min=0)
    least = values.mean().clamp(min=torch.finfo(torch.float32).tiny)
    return mean, (directions * (values + least).rsqrt()).float()


class NearestPictures:
    """v_ji = max(0, cosine)^power of the whitened features of two pictures, for the nearest of each item.

    An item without a picture (zero features) has no neighbours.

    Args:
        features: (n, f) float32 on the CPU.
        k: of each item j the k nearest others count, and those as near as the last of them.
        power: see above.
    """

    def __init__(self, features: Tensor, k: int, power: float) -> None:
        self.k, self.power = k, power
        self.mean, self.whitening = whitening(features)
        self.units = self._rows(features)
        self.least = torch.zeros(len(features))

    def among_themselves(self) -> sparse.csr_matrix:
        """v of all pairs of different items of the catalogue, a tile at a time: (n, n)."""
        indptr, items, values = [0], [], []
        for start in range(0, len(self.units), ROWS):
            cosines = self.units[start : start + ROWS] @ self.units.T
            own = torch.arange(len(cosines))
            cosines[own, own + start] = 0
            least = cosines.topk(min(self.k, len(self.units))).values[:, -1]
            self.least[start : start + ROWS] = least
            rows, columns = self._near(cosines, least)
            items.append(columns.numpy())
            values.append(cosines[rows, columns].pow(self.power).numpy())
            indptr.extend((indptr[-1] + torch.bincount(rows, minlength=len(cosines)).cumsum(0)).tolist())
        parts = np.concatenate(values), np.concatenate(items), np.array(indptr)
        return sparse.csr_matrix(parts, shape=(len(self.units), len(self.units)))

    def to_new(self, features: Tensor) -> sparse.csr_matrix:
        """v of the catalogue's items and new ones, (P, f) features: (n, P), as if these were in the catalogue."""
        cosines = self.units @ self._rows(features.cpu()).T
        rows, columns = self._near(cosines, self.least)
        values = cosines[rows, columns].pow(self.power)
        return sparse.csr_matrix((values.numpy(), (rows.numpy(), columns.numpy())), shape=cosines.shape)

    @staticmethod
    def _near(cosines: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = ((cosines >= least.unsqueeze(1)) & (cosines > 0)).nonzero(as_tuple=True)
        return rows, columns

    def _rows(self, features: Tensor) -> Tensor:
        present = features.any(1, keepdim=True)
        return F.normalize(torch.where(present, features - self.mean, 0) @ self.whitening, dim=1)


def same_group(groups: np.ndarray) -> sparse.csr_matrix:
    """1 for each pair of different items of one group: (n_items,) int64 group of each -> (n_items, n_items)."""
    n = len(groups)
    ones = np.ones(n, np.float32)
    member = sparse.csr_matrix((ones, (np.arange(n), groups)), shape=(n, int(groups.max(initial=-1)) + 1))
    pairs = (member @ member.T).tolil()
    pairs.setdiag(0)
    return pairs.tocsr()

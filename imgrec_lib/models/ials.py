"""iALS: matrix factorisation of all user-item pairs by alternating least squares, each of them solved exactly."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.models.base import InnerProduct, ModelCard, Profile, Range, Recommender
from imgrec_lib.options import Count, NotNegative, Positive

NUMBERS = 2**23
"""Numbers of float64 that a batch of histories gathers, 64 MB, unless a single history has more."""


class IALS(Recommender):
    """Score: s(u, i) = <x_u, y_i>.

    The factors minimise the sum over all pairs of c_ui (p_ui - <x_u, y_i>)^2, plus l2 (sum_u |x_u|^2 + sum_i |y_i|^2),
    where p_ui = 1 and c_ui = 1 + alpha for a training interaction, p_ui = 0 and c_ui = 1 for any other pair (Hu, Koren
    and Volinsky 2008, equation 3). With the items fixed each user's minimum is the solution of K equations, and with
    the users fixed each item's (equations 4 and 5); the two take turns. The users' turn is the last, so that a user is
    exactly what its purchases make of the items: `score_baskets` gives a known user the scores it has.

    The library implicit solves the equations by three steps of conjugate gradients unless it is told otherwise, and
    ends with the items; its `alpha` is 1 + this one. Here they are solved exactly, in float64, for a user with few
    purchases by as many equations as it has purchases. All is computed when the model is built.

    Args:
        data: the training data.
        factors: K.
        alpha: what an interaction weighs more than its absence.
        l2: the penalty.
        iterations: how often each side takes its turn.
        initial_scale: the items start normal with this standard deviation divided by sqrt(K), as Rendle et al. 2022
            (Revisiting the Performance of iALS on Item Recommendation Benchmarks) start them.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        factors: Count = 64,
        alpha: NotNegative = 1.0,
        l2: Positive = 0.1,
        iterations: Count = 15,
        initial_scale: Positive = 0.1,
    ) -> None:
        super().__init__()
        self.alpha, self.l2 = alpha, l2
        by_user = data.interactions
        by_item = Interactions.from_pairs(by_user.items, by_user.users, data.n_items, data.n_users)
        items = torch.randn(data.n_items, factors, dtype=torch.float64) * (initial_scale / factors**0.5)
        for _ in range(iterations):
            users = self._solve(by_user, items)
            items = self._solve(by_item, users)
        items = items.float()  # as it is kept, so that the users fit what is kept
        self.items = nn.Parameter(items, requires_grad=False)
        self.users = nn.Parameter(self._solve(by_user, items.double()).float(), requires_grad=False)

    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        return InnerProduct(self.users, self.items)

    def score_baskets(self, baskets: Interactions) -> Tensor:
        """See `Baskets`."""
        items = self.items.cpu()
        return self._solve(baskets, items.double()).float() @ items.T

    def _solve(self, rows: Interactions, fixed: Tensor) -> Tensor:
        """The factors of one side that are the best for those of the other.

        Args:
            rows: the interactions with the wanted side as users.
            fixed: (n_items, K) float64 factors of the other side.

        Returns:
            (n_users, K) float64.
        """
        factors = fixed.shape[1]
        everything = fixed.T @ fixed + self.l2 * torch.eye(factors, dtype=fixed.dtype)
        # Histories of similar length are solved together; the shorter ones are filled up with a row of zeros, which
        # changes no sum.
        padded = torch.cat([fixed, fixed.new_zeros(1, factors)])
        turned = torch.cholesky_solve(padded.T, torch.linalg.cholesky(everything)).T
        lengths = rows.history_lengths
        order = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
        solved, start = fixed.new_zeros(rows.n_users, factors), 0
        while start < len(order):
            longest = int(lengths[order[start]])
            half_as_long = int(np.searchsorted(-lengths[order], -longest / 2, side="right"))
            batch = order[start : min(half_as_long, start + max(1, NUMBERS // (longest * factors)))]
            start += len(batch)
            place = rows.indptr[batch, None] + np.arange(longest)
            items = np.where(
                place < rows.indptr[batch + 1, None], rows.items[place.clip(max=len(rows) - 1)], len(fixed)
            )
            chosen = torch.from_numpy(items)
            # The solution is (G + alpha V'V)^-1 V' (1 + alpha) 1, with the rows of what was bought as V and
            # G = Y'Y + l2 I. Where V has fewer rows than columns: G^-1 V' (I + alpha V G^-1 V')^-1 (1 + alpha) 1.
            bought = padded[chosen]
            if longest < factors:
                identity = torch.eye(longest, dtype=fixed.dtype)
                right = bought.new_full((len(batch), longest, 1), 1 + self.alpha)
                solution = turned[chosen].mT @ self._solution(identity, turned[chosen] @ bought.mT, right)
            else:
                right = (1 + self.alpha) * bought.sum(1).unsqueeze(2)
                solution = self._solution(everything, bought.mT @ bought, right)
            solved[torch.from_numpy(batch)] = solution.squeeze(2)
        return solved

    def _solution(self, constant: Tensor, own: Tensor, right: Tensor) -> Tensor:
        """(constant + alpha own)^-1 right: (k, k), (B, k, k) and (B, k, 1) -> (B, k, 1)."""
        return torch.cholesky_solve(right, torch.linalg.cholesky(constant + self.alpha * own))


CARD = ModelCard(
    name="ials",
    title="iALS",
    family="collaborative",
    needs=frozenset(),
    source="Hu, Koren and Volinsky 2008, Collaborative Filtering for Implicit Feedback Datasets",
    fidelity="faithful",
    build=IALS,
    profiles={
        "default": Profile(
            {"factors": 256, "alpha": 40.0, "l2": 100.0, "iterations": 10},
            note="the best of some twenty configurations by validation NDCG@10 on a week of H&M purchases",
        ),
        "paper": Profile(
            {"factors": 200, "alpha": 40.0, "l2": 100.0, "iterations": 10},
            note="200 factors, alpha 40 and ten iterations are the paper's; the penalty, which it leaves to "
            "cross-validation, is ours",
        ),
    },
    space={
        "factors": [64, 128, 256],
        "alpha": Range(1.0, 100.0, log=True),
        "l2": Range(0.1, 1e3, log=True),
    },
)

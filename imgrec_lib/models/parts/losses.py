"""The losses that several models share. Shapes are checked: a silent broadcast is a wrong loss."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from imgrec_lib.data.dataset import Interactions
from imgrec_lib.data.sampler import ItemBatch


def _check(positive: Tensor, negative: Tensor) -> None:
    if positive.ndim != 1 or negative.ndim != 2 or len(positive) != len(negative):
        raise ValueError(
            f"scores must be (B,) for positives and (B, n) for negatives, not {tuple(positive.shape)} "
            f"and {tuple(negative.shape)}"
        )


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Bayesian personalised ranking: the mean of -ln sigma(s(u,i) - s(u,j)) (Rendle et al. 2009, section 4.1).

    Args:
        positive: (B,) scores of the positives.
        negative: (B, n) scores of the negatives.

    Returns:
        Scalar: the mean over all B x n pairs.
    """
    _check(positive, negative)
    return F.softplus(negative - positive.unsqueeze(1)).mean()


def binary_cross_entropy(positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross-entropy on logits (Elsayed et al. 2022, the loss of ImgRec): positives are 1, negatives 0.

    Args:
        positive: (B,) logits.
        negative: (B, n) logits.

    Returns:
        Scalar: the mean over all B x (1 + n) examples.
    """
    _check(positive, negative)
    return (F.softplus(-positive).sum() + F.softplus(negative).sum()) / (positive.numel() + negative.numel())


def item_batch_cross_entropy(positive: Tensor, negative: Tensor, batch: ItemBatch) -> Tensor:
    """The estimate of `binary_cross_entropy` that has its expectation but is drawn by item (`Sampler.item_batch`).

    Args:
        positive: (P,) logits of the batch's positives.
        negative: (V, S) logits of all pairs of its `others` and `items`; the owned ones do not count.
        batch: the batch.

    Returns:
        Scalar.
    """
    if positive.shape != batch.users.shape or negative.shape != (len(batch.others), len(batch.items)):
        raise ValueError(f"logits of shapes {tuple(positive.shape)} and {tuple(negative.shape)} do not fit the batch")
    terms = F.softplus(negative)
    terms[batch.owned_users, batch.owned_places] = 0
    # No matrix products: mixed precision would compute them in bfloat16.
    return (batch.positive_weights * F.softplus(-positive)).sum() + (batch.negative_weights * terms.sum(1)).sum()


def half_squared_norm(*rows: Tensor) -> Tensor:
    """Mean over the batch of 1/2 ||row||^2, summed over the arguments.

    Args:
        rows: each (B, k) or (B, n, k): the gathered rows of one embedding table; with n negatives they count 1/n each.
    """
    return sum((0.5 * r.square().sum(-1).mean() for r in rows), start=rows[0].new_zeros(()))


def penalties_at(at_interactions: float | None, interactions: Interactions, *weights: float) -> tuple[float, ...]:
    """Penalty weights that were found on data of one density, carried over to data of another.

    A penalty on gathered rows acts once an occurrence of the row. For it to say as much against the data as a prior
    does, the same for every row however often it is seen, its weight must fall as the occurrences grow.

    Args:
        at_interactions: training interactions a row of the data that the weights were found on, where a row's are the
            geometric mean of a user's and an item's: n / sqrt(n_users n_items). None takes the weights as they are.
        interactions: the training interactions of the data at hand.
        weights: the penalty weights.

    Returns:
        The weights, each times at_interactions over the data's own interactions a row.

    Example:
        >>> import numpy as np
        >>> from imgrec_lib.data.dataset import Interactions
        >>> from imgrec_lib.models.parts.losses import penalties_at
        >>> users, items = np.divmod(np.arange(100), 10)  # ten users who have all ten items
        >>> everything = Interactions.from_pairs(users, items, n_users=10, n_items=10)
        >>> penalties_at(5.0, everything, 0.1, 0.01)
        (0.05, 0.005)
    """
    if at_interactions is None:
        return weights
    own = len(interactions) / math.sqrt(interactions.n_users * interactions.n_items)
    return tuple(weight * at_interactions / own for weight in weights)

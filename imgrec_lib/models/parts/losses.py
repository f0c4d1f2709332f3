"""The losses that several models share. Shapes are checked: a silent broadcast is a wrong loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

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

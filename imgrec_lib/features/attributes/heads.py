"""One linear head for each attribute, on the averaged feature map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import MinLen
from torch import Tensor

from imgrec_lib.errors import InputError
from imgrec_lib.features.attributes.labels import AttributeLabels, held_out_items
from imgrec_lib.features.attributes.maps import FeatureMaps, kept
from imgrec_lib.options import Array, Count, CountOrNone, NotNegative, ShareBelowOne


@dataclass(frozen=True, eq=False)
class Heads:
    """The linear heads of all attributes, stacked: rows `sizes[0]` for the first attribute, and so on.

    Attributes:
        weight: (number of values of all attributes, n_features) float32.
        bias: (number of values of all attributes,) float32.
        sizes: number of values of each attribute.
    """

    weight: Tensor
    bias: Tensor
    sizes: Sequence[int]

    def logits(self, pooled: Annotated[Tensor, Array(2, "f")]) -> tuple[Tensor, ...]:
        """Logits of each attribute's values: (B, n_features) -> for each attribute (B, number of values)."""
        return F.linear(pooled, self.weight, self.bias).split(list(self.sizes), 1)

    def predict(self, pooled: Annotated[Tensor, Array(2, "f")]) -> Tensor:
        """The likeliest value of each attribute: (B, n_features) -> (B, n_attributes) int64."""
        return torch.stack([logits.argmax(1) for logits in self.logits(pooled)], 1)

    def rows(self, values: Tensor) -> Tensor:
        """Where in `weight` values of the attributes stand: (..., n_attributes) int64 -> the same shape."""
        starts = torch.tensor([0, *self.sizes[:-1]], device=values.device).cumsum(0)
        return starts + values


def fit_heads(
    pooled: Tensor,
    codes: Tensor,
    sizes: Annotated[Sequence[Count], MinLen(1)],
    *,
    penalty: NotNegative = 1e-2,
    steps: CountOrNone = 200,
) -> Heads:
    """Fit the heads by multinomial logistic regression, all attributes at once.

    Minimises the sum over attributes of the mean cross-entropy of the items that have a label, plus
    penalty / 2 * (|W|^2 + |b|^2) on features brought to mean 0 and deviation 1. The problem is convex; L-BFGS on the
    whole set finds its only minimum, whatever the items' order.

    Args:
        pooled: (n, n_features) averaged feature maps.
        codes: (n, n_attributes) int64, -1 for a missing label.
        sizes: number of values of each attribute.
        penalty: weight of the penalty.
        steps: steps of L-BFGS at most.

    Returns:
        The heads, for features as they come.
    """
    mean, deviation = pooled.mean(0), pooled.std(0, correction=0)
    deviation = deviation.clamp_min(1e-3 * float(deviation.mean()) or 1.0)
    x = (pooled - mean) / deviation
    labelled = [(codes[:, a] >= 0).nonzero().squeeze(1) for a in range(len(sizes))]
    targets = [codes[rows, a] for a, rows in enumerate(labelled)]
    parameters = torch.zeros(sum(sizes), pooled.shape[1] + 1, dtype=x.dtype, device=x.device, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [parameters], max_iter=steps, tolerance_grad=1e-7, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimiser.zero_grad()
        heads = Heads(parameters[:, :-1], parameters[:, -1], sizes)
        losses = [
            F.cross_entropy(logits[rows], target)
            for logits, rows, target in zip(heads.logits(x), labelled, targets, strict=True)
            if len(rows)
        ]
        loss = torch.stack([*losses, 0.5 * penalty * parameters.square().sum()]).sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(objective)
    found = parameters.detach()
    weight = found[:, :-1] / deviation
    return Heads(weight, found[:, -1] - weight @ mean, sizes)


def train_heads(
    maps: FeatureMaps, labels: AttributeLabels, *, held_out: ShareBelowOne = 0.1, penalty: NotNegative = 1e-2
) -> Heads:
    """Train the heads on the items with a picture that are not held out; with keep="disk" once and for all.

    Args:
        maps: the pictures and the network.
        labels: what the item table says.
        held_out: share of the items kept aside for `attribute_accuracy`, see `held_out_items`.
        penalty: see `fit_heads`.

    Raises:
        InputError: fewer than two items are left to learn from.
    """

    def train() -> dict[str, np.ndarray]:
        kept = torch.from_numpy(maps.images.present & ~held_out_items(maps.images, held_out)).to(maps.device)
        if int(kept.sum()) < 2:
            raise InputError(
                f"attribute heads need two items with a picture to learn from: lower held_out ({held_out}), or add "
                "pictures."
            )
        pooled = torch.cat([x.mean((2, 3)) for _, x in maps.batches("attribute heads")])
        codes = torch.from_numpy(labels.codes).to(maps.device)
        heads = fit_heads(pooled[kept], codes[kept], labels.sizes, penalty=penalty)
        return {"weight": heads.weight.cpu().numpy(), "bias": heads.bias.cpu().numpy()}

    found = kept(maps, "heads", train, labels.codes, labels.sizes, held_out, penalty)
    weight, bias = (torch.from_numpy(np.array(found[name])).to(maps.device) for name in ("weight", "bias"))
    return Heads(weight, bias, labels.sizes)

"""WARP: matrix factorisation that pushes an item up the harder, the lower it seems to rank."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Batch, Sampler
from imgrec_lib.errors import InputError
from imgrec_lib.models.base import (
    InnerProduct,
    ModelCard,
    Profile,
    Range,
    Recommender,
    TrainSettings,
    announce,
    look_up,
)
from imgrec_lib.models.parts.losses import penalties_at
from imgrec_lib.models.parts.settings import HM_WEEK
from imgrec_lib.options import Count, NotNegative, Positive


class WARP(Recommender):
    """Score: s(u, i) = <v_u, w_i> + b_i. Loss: L(r) * max(0, 1 - s(u, i) + s(u, j)), summed and divided by B.

    For each positive, items are drawn uniformly from the catalogue until one violates the margin, s(u, j) >
    s(u, i) - 1, or `max_trials` are used up (then the positive adds nothing). A violator found at trial Q puts the
    positive's rank at r = floor((N - 1) / Q). A drawn item that is a training item of u uses up a trial and is no
    violator. L(r) is a constant to the gradient:

    - "lightfm": ln(max(1, r)), at most 10, as in LightFM (lyst/lightfm). Its user bias has no gradient, since it
      cancels in every difference, and is left out.
    - "wsabie": 1 + 1/2 + ... + 1/r, vectors projected back into a ball of radius `max_norm` after each step (Weston
      et al. 2011). A reconstruction: the projection's radius and the learning rate are not known to us, nor is the
      implementation behind the published fashion results.

    The penalty is l2 * 1/2 (|v_u|^2 + |w_i|^2 + |w_j|^2) + l2_bias * 1/2 (b_i^2 + b_j^2) of the triples that have a
    violator and a weight above 0, divided by B like the loss.

    Args:
        data: the training data.
        factors: latent size.
        max_trials: items drawn for a positive, at most.
        weighting: "lightfm" or "wsabie".
        bias: whether b_i is trained; else it stays 0.
        max_norm: radius of the ball (0: no projection).
        l2, l2_bias: penalty weights.
        at_interactions: training interactions a row where these were found, see `penalties_at`; None: as they are.
        initial_scale: vectors start uniform in +- initial_scale / factors; b starts at 0.

    Raises:
        InputError: an unknown weighting, or no trial.
    """

    weights: Tensor
    owned: Tensor

    def __init__(
        self,
        data: TrainingData,
        *,
        factors: Count = 64,
        max_trials: Count = 10,
        weighting: str = "lightfm",
        bias: bool = True,
        max_norm: NotNegative = 0.0,
        l2: NotNegative = 0.0,
        l2_bias: NotNegative = 0.0,
        at_interactions: Positive | None = None,
        initial_scale: NotNegative = 0.5,
    ) -> None:
        super().__init__()
        self.max_trials, self.max_norm = max_trials, max_norm
        self.l2, self.l2_bias = penalties_at(at_interactions, data.interactions, l2, l2_bias)
        self.register_buffer("weights", rank_weights(data.n_items, max_trials, weighting), persistent=False)
        owned = data.interactions.users * data.n_items + data.interactions.items  # ascending
        self.register_buffer("owned", torch.as_tensor(owned), persistent=False)
        limit = initial_scale / factors
        self.users = nn.Parameter(torch.empty(data.n_users, factors).uniform_(-limit, limit))
        self.items = nn.Parameter(torch.empty(data.n_items, factors).uniform_(-limit, limit))
        self.item_bias = nn.Parameter(torch.zeros(data.n_items), requires_grad=bias)

    def row_tables(self) -> tuple[nn.Parameter, ...]:
        vectors = () if self.max_norm else (self.users, self.items)  # the projection reads all rows
        return (*vectors, self.item_bias)

    def sample(self, sampler: Sampler, settings: TrainSettings) -> Batch:
        """Draw positives and all their trials at once: (B, max_trials), of the whole catalogue."""
        users, positives, times = sampler.positives(settings.batch_size, settings.positives_by)
        return Batch(users, positives, sampler.randint(sampler.n_items, (len(users), self.max_trials)), times)

    @torch.no_grad()
    def first_violators(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Search the trials for the first violator of the margin, with the weights as they are.

        Returns:
            The items (B,) int64, and L(r) (B,), which is 0 where no trial violates (the item then means nothing).
        """
        announce(self.users, batch.users)
        for table, index in product((self.items, self.item_bias), (batch.positives, batch.negatives)):
            announce(table, index)
        search = _search if self.users.device.type == "cpu" else _search_all
        first = search(batch, self.owned, self.users, self.items, self.item_bias)
        found, trial = first < self.max_trials, first.clamp_max(self.max_trials - 1)
        item = batch.negatives.gather(1, trial.unsqueeze(1)).squeeze(1)
        return item, torch.where(found, self.weights[trial], 0)

    def loss(self, batch: Batch) -> Tensor:
        negatives, weight = self.first_violators(batch)
        user, pair = look_up(self.users, batch.users), torch.stack([batch.positives, negatives])
        positive, negative = look_up(self.items, pair)
        b_positive, b_negative = look_up(self.item_bias, pair)
        hinge = torch.relu(1 - (user * (positive - negative)).sum(1) - b_positive + b_negative)
        loss = weight * hinge
        if self.l2 or self.l2_bias:
            norms = 0.5 * (user.square() + positive.square() + negative.square()).sum(1)
            biases = 0.5 * (b_positive.square() + b_negative.square())
            loss = loss + (weight > 0) * (self.l2 * norms + self.l2_bias * biases)
        return loss.mean()

    @torch.no_grad()
    def after_step(self) -> None:
        if self.max_norm:
            for table in (self.users, self.items):
                table.copy_(torch.renorm(table, p=2, dim=0, maxnorm=self.max_norm))

    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        return InnerProduct.with_item_offset(self.users.detach(), self.items.detach(), self.item_bias.detach())


def _search(batch: Batch, owned: Tensor, users: Tensor, items: Tensor, item_bias: Tensor) -> Tensor:
    """On the CPU: each first violator's number, (B,) int64, or the number of trials where none violates.

    One trial after the other, until one violates: most are never scored.
    """
    from imgrec_lib.models.parts import warp_search

    arrays = (batch.users, batch.positives, batch.negatives, owned, users, items, item_bias)
    return torch.from_numpy(warp_search.first_violators(*(array.detach().contiguous().numpy() for array in arrays)))


def _search_all(batch: Batch, owned: Tensor, users: Tensor, items: Tensor, item_bias: Tensor) -> Tensor:
    """The same on any device, with all trials scored at once."""
    trials, user = batch.negatives, users[batch.users]
    margin = (user * items[batch.positives]).sum(1) + item_bias[batch.positives] - 1
    scores = torch.einsum("bk,btk->bt", user, items[trials]) + item_bias[trials]
    keys = batch.users.unsqueeze(1) * len(items) + trials
    is_owned = owned[torch.searchsorted(owned, keys).clamp_max(len(owned) - 1)] == keys
    violates = (scores > margin.unsqueeze(1)) & ~is_owned
    return torch.where(violates.any(1), violates.int().argmax(1), trials.shape[1])


def rank_weights(n_items: int, max_trials: int, weighting: str) -> Tensor:
    """L(r) for a violator found at trial Q = 1, 2, ..., where r = floor((n_items - 1) / Q).

    Args:
        n_items: size of the catalogue.
        max_trials: the largest Q.
        weighting: "lightfm" for ln(max(1, r)) capped at 10, "wsabie" for the sum of 1/k up to r.

    Returns:
        (max_trials,) float32.

    Raises:
        InputError: an unknown weighting.
    """
    ranks = (n_items - 1) // np.arange(1, max_trials + 1)
    if weighting == "lightfm":
        weights = np.minimum(np.log(np.maximum(ranks, 1)), 10)
    elif weighting == "wsabie":
        weights = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n_items))])[ranks]
    else:
        raise InputError(f"WARP's weighting is 'lightfm' or 'wsabie', not {weighting!r}.")
    return torch.as_tensor(weights, dtype=torch.float32)


# LightFM starts Adagrad's sums at 1 and steps by example; on a batch's mean, epsilon 1 / 256 damps alike.
LIGHTFM = TrainSettings(
    optimiser="adagrad", learning_rate=0.05, batch_size=256, positives_by="interaction", epsilon=1 / 256
)

CARD = ModelCard(
    name="warp",
    title="WARP",
    family="collaborative",
    needs=frozenset(),
    source="Weston, Bengio, Usunier 2011, WSABIE; weighting of LightFM (Kula 2015)",
    fidelity="reconstruction",
    build=WARP,
    profiles={
        "default": Profile(
            {"factors": 64, "max_trials": 10, "l2": 0.1, "l2_bias": 0.01, "at_interactions": HM_WEEK},
            (LIGHTFM,),
            "tuned by validation AUC on a week of H&M purchases",
        ),
        "paper": Profile(
            {"factors": 10},
            (LIGHTFM,),
            "LightFM's defaults (10 factors, 10 trials, Adagrad 0.05, no L2); the settings behind the published "
            "0.6065 and 0.6081 are unknown",
        ),
        "wsabie": Profile(
            {"factors": 64, "max_trials": 100, "weighting": "wsabie", "bias": False, "max_norm": 1.0},
            (TrainSettings(optimiser="sgd", learning_rate=1.0, batch_size=128, positives_by="interaction"),),
            "a reconstruction of WSABIE: harmonic weight, unit ball, plain SGD; radius and rate are ours",
        ),
    },
    space={
        "factors": [32, 64, 128],
        "learning_rate": Range(1e-2, 0.2, log=True),
        "max_trials": [10, 50],
        "l2": Range(1e-3, 1.0, log=True),
    },
)

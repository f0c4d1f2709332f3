"""JRL, visual view only: user and item embeddings that a shared decoder turns back into item pictures."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Batch, Sampler
from imgrec_lib.models.base import InnerProduct, ModelCard, Profile, Range, Recommender, TrainSettings, dot, look_up
from imgrec_lib.models.parts.losses import binary_cross_entropy, half_squared_norm, penalties_at
from imgrec_lib.models.parts.settings import HM_WEEK
from imgrec_lib.models.parts.visual import shared_features
from imgrec_lib.options import Count, NotNegative, Positive


class JRL(Recommender):
    """Score: s(u, i) = <P_u, Q_i>, plus o_i with `score_with_bias`.

    Loss, summed over the batch and divided by its size, as in the repositories evison/JRL and
    QingyaoAi/Joint-Representation-Learning-for-Top-N-Recommendation:

    * reconstruction: image_weight * (1/2 |dec(P_u) - f_i|^2 + 1/2 |dec(Q_i) - f_i|^2);
    * ranking: -ln sigma(<P_u, Q_i> + o_i) - sum over the negatives j of ln sigma(-<P_u, Q_j> - o_j).

    One decoder, d -> (F + d) / 2 -> F with ELU after both layers, serves users and items. The negatives are shared
    by the whole batch, drawn uniformly with replacement and not filtered. P, Q and o start at zero, where the
    ranking loss has no gradient for P and Q: reconstruction is what moves them at first. Features enter as given.

    Differences to the repositories: only the visual view is here; training passes over interactions, while their loader
    passes over the words of reviews (each interaction once for every kept word); and the ranking loss is always there,
    which evison/JRL's default structure "pv" leaves out (QingyaoAi's "simplified_bpr" has it).

    Args:
        data: the training data; `features` are needed.
        factors: latent size d.
        image_weight: weight of the reconstruction loss.
        l2: penalty on the mean of 1/2 |P_u|^2 + 1/2 |Q_i|^2 + 1/2 |Q_j|^2.
        at_interactions: training interactions a row where these were found, see `penalties_at`; None: as they are.
        score_with_bias: add o_i to the score at serving time (the repositories' default leaves it out).
    """

    features: Tensor
    mixed_precision = True

    def __init__(
        self,
        data: TrainingData,
        *,
        factors: Count = 64,
        image_weight: NotNegative = 1.0,
        l2: NotNegative = 0.0,
        at_interactions: Positive | None = None,
        score_with_bias: bool = False,
    ) -> None:
        super().__init__()
        self.image_weight, self.score_with_bias = image_weight, score_with_bias
        (self.l2,) = penalties_at(at_interactions, data.interactions, l2)
        self.register_buffer("features", shared_features(data), persistent=False)
        width = self.features.shape[1]
        hidden = (width + factors) // 2
        self.users = nn.Parameter(torch.zeros(data.n_users, factors))
        self.items = nn.Parameter(torch.zeros(data.n_items, factors))
        self.item_bias = nn.Parameter(torch.zeros(data.n_items))
        inner, outer = nn.Linear(factors, hidden), nn.Linear(hidden, width)
        self.decoder = nn.Sequential(inner, nn.ELU(), outer, nn.ELU())
        for layer in (inner, outer):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def sample(self, sampler: Sampler, settings: TrainSettings) -> Batch:
        """Positives as usual; one row of negatives, shared by all of them: (B, n), every row the same."""
        users, items, times = sampler.positives(settings.batch_size, settings.positives_by)
        shared = sampler.randint(sampler.n_items, (1, settings.negatives))
        return Batch(users, items, shared.expand(len(users), -1), times)

    def row_tables(self) -> tuple[nn.Parameter, ...]:
        return self.users, self.items

    def reconstruction(self, batch: Batch) -> Tensor:
        """Mean over the batch of 1/2 |dec(P_u) - f_i|^2 + 1/2 |dec(Q_i) - f_i|^2, not weighted: a scalar."""
        both = torch.cat([look_up(self.users, batch.users), look_up(self.items, batch.positives)])
        target = look_up(self.features, batch.positives).repeat(2, 1)
        return F.mse_loss(self.decoder(both), target, reduction="sum") / (2 * len(batch.users))

    def ranking(self, batch: Batch) -> Tensor:
        """Mean over the batch of the sampled logistic loss, summed over positive and negatives: a scalar."""
        items = batch.items
        user, item = look_up(self.users, batch.users), look_up(self.items, items)
        logits = dot(user, item) + look_up(self.item_bias, items)
        return items.shape[1] * binary_cross_entropy(logits[:, 0], logits[:, 1:])

    def loss(self, batch: Batch) -> Tensor:
        loss = self.ranking(batch) + self.image_weight * self.reconstruction(batch)
        if self.l2:
            tables = (self.users, batch.users), (self.items, batch.positives), (self.items, batch.negatives)
            loss = loss + self.l2 * half_squared_norm(*(look_up(table, index) for table, index in tables))
        return loss

    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        users, items = self.users.detach(), self.items.detach()
        if self.score_with_bias:
            return InnerProduct.with_item_offset(users, items, self.item_bias.detach())
        return InnerProduct(users, items)


# Both repositories multiply their batch of 64 by one and the number of negatives, and draw so many positives.
REPOSITORIES = TrainSettings(
    optimiser="sgd",
    batch_size=64 * 6,
    patience=0,
    restore="last",
    negatives=5,
    positives_by="interaction",
    gradient_clip=5.0,
    schedule="linear",
)

CARD = ModelCard(
    name="jrl",
    title="JRL (visual)",
    family="visual",
    needs=frozenset({"features"}),
    source="Zhang et al. 2017, Joint Representation Learning for Top-N Recommendation with Heterogeneous "
    "Information Sources; visual view only, over interactions instead of words",
    fidelity="faithful",
    build=JRL,
    profiles={
        "default": Profile(
            {"factors": 64, "image_weight": 0.1, "l2": 0.01, "score_with_bias": True, "at_interactions": HM_WEEK},
            (
                TrainSettings(
                    learning_rate=1e-2,
                    batch_size=4096,
                    negatives=5,
                    positives_by="interaction",
                    gradient_clip=5.0,
                ),
            ),
            "tuned by validation AUC on a week of H&M purchases",
        ),
        "paper": Profile(
            {"factors": 300, "image_weight": 1e-4},
            (replace(REPOSITORIES, learning_rate=0.5, epochs=20),),
            "defaults of QingyaoAi/Joint-Representation-Learning-for-Top-N-Recommendation, made for 4096-d features",
        ),
        "code": Profile(
            {"factors": 100, "image_weight": 1.0},
            (replace(REPOSITORIES, learning_rate=0.05, epochs=5),),
            "defaults of evison/JRL, made for 4096-d features; its default structure has no ranking loss, this one has",
        ),
    },
    space={
        "factors": [32, 64, 128],
        "learning_rate": Range(1e-3, 3e-2, log=True),
        "image_weight": Range(1e-3, 1.0, log=True),
        "l2": Range(1e-4, 0.1, log=True),
    },
)

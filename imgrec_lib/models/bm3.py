"""BM3: users, items and the items' features are pulled together without a single negative example."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Batch, Sampler
from imgrec_lib.models.base import InnerProduct, ModelCard, Profile, Range, Recommender, TrainSettings, look_up
from imgrec_lib.models.parts.graph import Graph, user_item_graph
from imgrec_lib.models.parts.losses import half_squared_norm
from imgrec_lib.models.parts.modality import modalities_of
from imgrec_lib.models.parts.purchases import purchase_matrix
from imgrec_lib.models.parts.settings import LARGE_BATCHES
from imgrec_lib.options import Count, CountOrNone, NotNegative, ShareBelowOne


class BM3(Recommender):
    """Score: s(u, i) = <p(e_u), p(e_i)>, with a linear predictor p(x) = x W_p + b_p.

    e_u is LightGCN's mean over the layers of the user-item graph, and e_i the same plus the item's own id vector (Zhou
    et al. 2023). Loss, with C(x, t) = 1 - cos(p(x), t'), where t' is a copy of t of which dropout
    took a share, and through which no gradient flows, and with v_i = W f_i + b, the item's projected features:

        mean of C(e_u, e_i) + C(e_i, e_u)              (the paper's graph reconstruction)
        + feature_weight C(v_i, e_i)                   (its alignment between modalities)
        + feature_weight C(v_i, v_i)                   (its masked reconstruction within one), for each kind of features
        + l2 (1/2 |e_u|^2 + 1/2 |e_i|^2).

    The paper's C is minus the cosine, which is the same but for a constant. No negative is drawn: `negatives` has no
    effect. Features reach the scores through training alone.

    The authors' code in enoche/MMRec differs, and is not followed, in these: it trains the raw features too, as one
    more table; its penalty is the length, not squared, of the whole table of users and of items, divided by the number
    of items, instead of the batch's squared lengths; it calls `detach` without using what it returns, which its
    `no_grad` makes up for.

    Args:
        data: the training data; `features` are needed.
        factors: K.
        layers: of the user-item graph.
        dropout: the share of a target's numbers that are set to 0, the others growing in proportion.
        feature_weight: weight of the features' losses.
        l2: penalty weight.
        initial_scale: the id vectors start normal with this standard deviation.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        factors: Count = 64,
        layers: CountOrNone = 1,
        dropout: ShareBelowOne = 0.0,
        feature_weight: NotNegative = 0.1,
        l2: NotNegative = 0.0,
        initial_scale: NotNegative = 0.1,
    ) -> None:
        super().__init__()
        self.layers, self.feature_weight, self.l2 = layers, feature_weight, l2
        self.graph = Graph(user_item_graph(purchase_matrix(data.interactions)))
        self.users = nn.Parameter(torch.empty(data.n_users, factors))
        self.items = nn.Parameter(torch.empty(data.n_items, factors))
        for table in (self.users, self.items):
            nn.init.normal_(table, std=initial_scale)
        self.predictor = nn.Linear(factors, factors)
        nn.init.xavier_normal_(self.predictor.weight)
        self.modalities = nn.ModuleDict(modalities_of(data, factors, bias=True))
        self.dropout = nn.Dropout(dropout)

    def sample(self, sampler: Sampler, settings: TrainSettings) -> Batch:
        users, items, times = sampler.positives(settings.batch_size, settings.positives_by)
        return Batch(users, items, items.new_empty(len(items), 0), times)

    def propagated(self) -> tuple[Tensor, Tensor]:
        """e of all users and of all items: (n_users, K) and (n_items, K)."""
        nodes = self.graph.mean_of_layers(torch.cat([self.users, self.items]), self.layers)
        return nodes[: len(self.users)], nodes[len(self.users) :] + self.items

    def loss(self, batch: Batch) -> Tensor:
        everyone, everything = self.propagated()
        user, item = look_up(everyone, batch.users), look_up(everything, batch.positives)
        loss = self._apart(user, item) + self._apart(item, user)
        if self.feature_weight:
            for modality in self.modalities.values():
                projected = modality(batch.positives)
                loss = loss + self.feature_weight * (self._apart(projected, item) + self._apart(projected, projected))
        if self.l2:
            loss = loss + self.l2 * half_squared_norm(user, item)
        return loss

    @torch.no_grad()
    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        return InnerProduct(*(self.predictor(side) for side in self.propagated()))

    def _apart(self, online: Tensor, target: Tensor) -> Tensor:
        """C of `BM3`, the mean over (B, K) rows."""
        return 1 - F.cosine_similarity(self.predictor(online), self.dropout(target.detach()), dim=1).mean()


CARD = ModelCard(
    name="bm3",
    title="BM3",
    family="visual",
    needs=frozenset({"features"}),
    source="Zhou et al. 2023, Bootstrap Latent Representations for Multi-modal Recommendation",
    fidelity="faithful",
    build=BM3,
    profiles={
        "default": Profile(
            {"factors": 64, "dropout": 0.3, "feature_weight": 1.0},
            (replace(LARGE_BATCHES, learning_rate=1e-2),),
            "feature_weight chosen by validation among three values on a week of H&M purchases",
        ),
        "paper": Profile(
            {"factors": 64, "layers": 1, "dropout": 0.3, "feature_weight": 2.0, "l2": 0.1},
            (TrainSettings(learning_rate=1e-3, batch_size=2048, positives_by="interaction", epochs=1000, patience=20),),
            "64 factors, Adam 1e-3, batches of 2,048; layers, dropout and penalty are one of the sets that the authors "
            "search",
        ),
    },
    space={
        "learning_rate": Range(1e-3, 3e-2, log=True),
        "layers": [1, 2],
        "dropout": [0.3, 0.5],
        "feature_weight": Range(0.1, 10.0, log=True),
    },
)

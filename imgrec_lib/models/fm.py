"""FM: the factorisation machine over user id and item id, trained pairwise."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Batch, CandidateBatch, Sampler
from imgrec_lib.models.base import InnerProduct, ModelCard, Profile, Range, Recommender, TrainSettings, look_up
from imgrec_lib.models.parts.losses import half_squared_norm, penalties_at
from imgrec_lib.models.parts.objective import Objective
from imgrec_lib.models.parts.settings import HM_WEEK, LARGE_BATCHES
from imgrec_lib.options import Count, NotNegative, Positive


class FactorisationMachine(Recommender):
    """Score: w_0 + sum_k w_k x_k + sum_{k<l} <v_k, v_l> x_k x_l (Rendle 2010, equation 1) of a user and an item.

    All that a user adds alone (w_0, w_u) cancels in the pairwise loss and in every ranking, and is left out. What
    remains is s(u, i) = <v_u, z_i> + o_i: z_i sums the vectors of the item's fields, and o_i holds their linear
    weights and their interactions with one another. A subclass says what further fields an item has (`fm-visual`).

    With the ids alone, z_i = v_i and o_i = w_i: the same model as BPR-MF with an item bias. Table 2 of Elsayed et al.
    2022 lists "FM" among the models without pictures and far above BPR-MF, which this model class cannot explain: see
    `fm-visual` for the other reading.

    Loss: mean of -ln sigma(s(u,i) - s(u,j)) (Rendle et al. 2009), plus l2 * mean(1/2 |v_u|^2 + 1/2 |v_i|^2 +
    1/2 |v_j|^2) + l2_linear * mean(1/2 w_i^2 + 1/2 w_j^2) on the gathered rows.

    Args:
        data: the training data.
        loss: what is minimised, see `Objective`; other losses than "bpr" take the place of its term.
        factors: latent size K.
        l2, l2_linear: penalty weights of vectors and linear weights.
        at_interactions: training interactions a row where these were found, see `penalties_at`; None: as they are.
        initial_scale: vectors start normal with this standard deviation; linear weights at 0.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        loss: str = "bpr",
        factors: Count = 64,
        l2: NotNegative = 0.0,
        l2_linear: NotNegative = 0.0,
        at_interactions: Positive | None = None,
        initial_scale: NotNegative = 0.01,
    ) -> None:
        super().__init__()
        self.objective = Objective(loss)
        self.l2, self.l2_linear = penalties_at(at_interactions, data.interactions, l2, l2_linear)
        self.users = nn.Parameter(torch.empty(data.n_users, factors).normal_(std=initial_scale))
        self.items = nn.Parameter(torch.empty(data.n_items, factors).normal_(std=initial_scale))
        self.item_weight = nn.Parameter(torch.zeros(data.n_items))

    def item_side(self, items: Tensor, vectors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """z_i and o_i of items, given the v_i and w_i of their ids: (...), (..., K), (...) -> (..., K) and (...)."""
        return vectors, weights

    def shared_penalty(self) -> Tensor | None:
        """The penalty on weights that no single item owns, if the subclass has any."""
        return None

    def row_tables(self) -> tuple[nn.Parameter, ...]:
        return self.objective.row_tables(users=[self.users], items=[self.items])

    def sample(self, sampler: Sampler, settings: TrainSettings) -> Batch | CandidateBatch:
        return self.objective.sample(sampler, settings)

    def loss(self, batch: Batch | CandidateBatch) -> Tensor:
        user = look_up(self.users, batch.users)
        candidates = batch.items
        vectors, weights = look_up(self.items, candidates), look_up(self.item_weight, candidates)
        sides, offsets = self.item_side(candidates, vectors, weights)
        loss = self.objective(batch, user, sides, offsets)
        if self.l2:
            loss = loss + self.l2 * half_squared_norm(user, *batch.split(vectors))
        if self.l2_linear:
            loss = loss + self.l2_linear * half_squared_norm(*batch.split(weights.unsqueeze(-1)))
        shared = self.shared_penalty()
        return loss if shared is None else loss + shared

    @torch.no_grad()
    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        parts = torch.arange(len(self.items), device=self.items.device).split(8192)
        sides = (self.item_side(part, self.items[part], self.item_weight[part]) for part in parts)
        vectors, offsets = zip(*sides, strict=True)
        return InnerProduct.with_item_offset(self.users.detach(), torch.cat(vectors), torch.cat(offsets))


CARD = ModelCard(
    name="fm-id",
    title="FM-ID",
    family="collaborative",
    needs=frozenset(),
    source="Rendle 2010, Factorization Machines; pairwise loss of Rendle et al. 2009",
    fidelity="faithful",
    build=FactorisationMachine,
    profiles={
        "default": Profile(
            {"factors": 64, "l2": 0.1, "l2_linear": 0.01, "at_interactions": HM_WEEK},
            (replace(LARGE_BATCHES, learning_rate=1e-2),),
            "BPR-MF's settings, for it is the same model; tuned on a week of H&M purchases",
        ),
        "paper": Profile(
            {"factors": 10, "initial_scale": 0.1},
            (TrainSettings(learning_rate=1e-3),),
            "a reconstruction: the published 0.7093 and 0.6654 come without settings or list of fields",
        ),
    },
    space={
        "factors": [32, 64, 128],
        "learning_rate": Range(1e-3, 3e-2, log=True),
        "l2": Range(1e-3, 1.0, log=True),
        "l2_linear": Range(1e-4, 0.1, log=True),
    },
)

"""GraphRec, implicit form: one dense layer a side over id, row of the interaction matrix, degree and attributes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.data.sampler import Batch, CandidateBatch, Sampler
from imgrec_lib.models.base import (
    InnerProduct,
    ModelCard,
    Profile,
    Range,
    Recommender,
    TrainSettings,
    distinct,
    look_up,
)
from imgrec_lib.models.parts.layers import crelu
from imgrec_lib.models.parts.losses import half_squared_norm
from imgrec_lib.models.parts.objective import Objective
from imgrec_lib.models.parts.visual import shared_features
from imgrec_lib.options import Count, NotNegative


class GraphRec(Recommender):
    """Score: s(u, i) = <z_u, z_i>, with z = CReLU(h) = [relu(h), relu(-h)] on both sides and

        h_u = W_id[u] + sum over i in I_u of a_ui W_adj[i] + (|I_u| / largest |I|) w_deg + b,

    and h_i alike over the users U_i of item i, plus W_X f_i and W_C[category of i] where the data has features and
    categories. This is a dense layer on [one-hot id | row of the interaction matrix | degree | attributes], none of
    which is ever built. The graph holds training interactions only. a_ui = 1 (the repository's adjacency row), or
    1 / sqrt(|I_u| |U_i|) with `laplacian` (the normalised features that the paper's abstract speaks of).

    Loss: binary cross-entropy of each positive and its negatives (the published form is squared error on ratings),
    plus l2_users * mean 1/2 |z_u|^2 + l2_items * mean 1/2 |z_i|^2: on activations, as in the repository
    ahmedrashed-ml/GraphRec, and means over the batch, not sums.

    A training positive (u, i) is an entry of the very rows it is predicted from: in the original the label leaks
    into the input. With `mask_own_edge` the positive and its negatives are scored in the graph without the edge
    (u, i): its entries leave both adjacency rows and both degrees fall by one (the factors a_ui of the other edges
    and the largest degree stay those of the full graph). A slighter leak remains, that a positive item lost an edge
    and a negative did not. Evaluation uses the full training graph.

    Args:
        data: the training data.
        loss: what is minimised, see `Objective`; other losses than "bce" take the place of its term.
        factors: width K of each side's layer; the embeddings are 2K wide.
        l2_users, l2_items: UW and IW.
        use_features, use_categories: take the items' features or categories as attributes, where the data has them.
        laplacian: normalise the adjacency.
        mask_own_edge: score training positives without their own edge.
        initial_scale: all weights start normal with this standard deviation, biases at 0.
    """

    features: Tensor | None
    categories: Tensor | None

    def __init__(
        self,
        data: TrainingData,
        *,
        loss: str = "bce",
        factors: Count = 64,
        l2_users: NotNegative = 0.0,
        l2_items: NotNegative = 0.0,
        use_features: bool = True,
        use_categories: bool = True,
        laplacian: bool = False,
        mask_own_edge: bool = True,
        initial_scale: NotNegative = 0.01,
    ) -> None:
        super().__init__()
        self.objective = Objective(loss)
        self.l2_users, self.l2_items, self.mask_own_edge = l2_users, l2_items, mask_own_edge
        by_user = data.interactions
        by_item = Interactions.from_pairs(by_user.items, by_user.users, data.n_items, data.n_users)
        self.users = _GraphLayer(by_user, factors, laplacian=laplacian)
        self.items = _GraphLayer(by_item, factors, laplacian=laplacian)
        has_features = use_features and data.features is not None
        has_categories = use_categories and data.categories is not None
        self.register_buffer("features", shared_features(data) if has_features else None, persistent=False)
        self.register_buffer(
            "categories", torch.as_tensor(data.categories) if has_categories else None, persistent=False
        )
        if self.features is not None:
            self.feature_weight = nn.Parameter(torch.empty(self.features.shape[1], factors))
        if self.categories is not None:
            self.category_table = nn.Parameter(torch.empty(data.n_categories, factors))
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=initial_scale)

    def row_tables(self) -> tuple[nn.Parameter, ...]:
        return self.objective.row_tables(users=[self.users.identity], items=[self.items.identity])

    def user_layer(self, users: Tensor) -> Tensor:
        """h_u of (B,) users: (B, K)."""
        return self.users(users)

    def item_layer(self, items: Tensor) -> Tensor:
        """h_i of (B,) items, attributes included: (B, K)."""
        h = self.items(items)
        if self.features is not None:
            h = h + look_up(self.features, items) @ self.feature_weight
        if self.categories is not None:
            h = h + look_up(self.category_table, self.categories[items])
        return h

    def sample(self, sampler: Sampler, settings: TrainSettings) -> Batch | CandidateBatch:
        return self.objective.sample(sampler, settings)

    def loss(self, batch: Batch | CandidateBatch) -> Tensor:
        # Popular items repeat in a batch and have the longest rows: each is summed up once.
        different, place = distinct(batch.items)
        h_user, h_items = self.user_layer(batch.users), look_up(self.item_layer(different), place)
        if self.mask_own_edge:
            h_user = h_user - self.users.edge(batch.users, batch.positives)
            own = self.items.edge(batch.positives, batch.users)
            positives, others = batch.split(h_items)
            h_items = batch.join(positives - own, others)
        user, item = crelu(h_user), crelu(h_items)
        return (
            self.objective(batch, user, item)
            + self.l2_users * half_squared_norm(user)
            + self.l2_items * half_squared_norm(item)
        )

    @torch.no_grad()
    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        users, items = (
            torch.arange(len(side.identity), device=side.identity.device) for side in (self.users, self.items)
        )
        return InnerProduct(
            torch.cat([crelu(self.user_layer(part)) for part in users.split(8192)]),
            torch.cat([crelu(self.item_layer(part)) for part in items.split(8192)]),
        )


class _GraphLayer(nn.Module):
    """The dense layer of one side on [one-hot id | row of the interaction matrix | degree], by table look-ups.

    Args:
        rows: the interactions with this side (n) as rows and the other side (m) as columns.
        factors: width K.
        laplacian: entries 1 / sqrt(row degree * column degree) instead of 1.
    """

    indptr: Tensor
    columns: Tensor
    degree: Tensor
    row_factor: Tensor
    column_factor: Tensor

    def __init__(self, rows: Interactions, factors: int, *, laplacian: bool) -> None:
        super().__init__()
        self.identity = nn.Parameter(torch.empty(rows.n_users, factors))
        self.adjacency = nn.Parameter(torch.empty(rows.n_items, factors))
        self.degree_weight = nn.Parameter(torch.empty(factors))
        self.bias = nn.Parameter(torch.empty(factors))
        row_degree, column_degree = (
            torch.as_tensor(d, dtype=torch.float32).clamp_min(1) for d in (rows.history_lengths, rows.popularity)
        )
        self.largest = float(row_degree.max())
        buffers = {
            "indptr": torch.as_tensor(rows.indptr),
            "columns": torch.as_tensor(rows.items),
            "degree": torch.as_tensor(rows.history_lengths, dtype=torch.float32) / self.largest,
            "row_factor": row_degree.rsqrt() if laplacian else torch.ones(rows.n_users),
            "column_factor": column_degree.rsqrt() if laplacian else torch.ones(rows.n_items),
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, index: Tensor) -> Tensor:
        """h of (B,) int64 rows: (B, K)."""
        start = self.indptr[index]
        lengths = self.indptr[index + 1] - start
        offsets = lengths.cumsum(0) - lengths
        shift = torch.repeat_interleave(start - offsets, lengths)
        columns = self.columns[shift + torch.arange(len(shift), device=index.device)]
        neighbours = F.embedding_bag(
            columns, self.adjacency, offsets, mode="sum", per_sample_weights=self.column_factor[columns]
        )
        return (
            look_up(self.identity, index)
            + self.row_factor[index].unsqueeze(1) * neighbours
            + self.degree[index].unsqueeze(1) * self.degree_weight
            + self.bias
        )

    def edge(self, index: Tensor, columns: Tensor) -> Tensor:
        """What each edge (index, column) adds to h: its adjacency entry and its part of the degree, (B, K)."""
        factor = self.row_factor[index] * self.column_factor[columns]
        return factor.unsqueeze(1) * look_up(self.adjacency, columns) + self.degree_weight / self.largest


CARD = ModelCard(
    name="graphrec",
    title="GraphRec",
    family="hybrid",
    needs=frozenset(),
    optional=frozenset({"features", "categories"}),
    source="Rashed, Grabocka, Schmidt-Thieme 2019, Attribute-Aware Non-Linear Co-Embeddings of Graph Features; "
    "binary cross-entropy instead of squared error on ratings",
    fidelity="reconstruction",
    build=GraphRec,
    profiles={
        "default": Profile(
            {"factors": 64, "l2_users": 1e-3},
            (TrainSettings(learning_rate=1e-3, batch_size=4096, epochs=300, patience=10),),
            "tuned by validation AUC on a week of H&M purchases",
        ),
        "paper": Profile(
            {"factors": 50, "l2_users": 0.05, "l2_items": 0.02, "mask_own_edge": False},
            (
                TrainSettings(
                    learning_rate=3e-5,
                    batch_size=1000,
                    epochs=196,
                    patience=0,
                    restore="last",
                    positives_by="interaction",
                    epsilon=1e-8 / 2000,
                ),
            ),
            "ahmedrashed-ml/GraphRec for MovieLens-100k with graph features, the weights of the last epoch; none is "
            "published for implicit feedback",
        ),
    },
    space={
        "factors": [32, 64, 128],
        "learning_rate": Range(3e-4, 1e-2, log=True),
        "l2_users": Range(1e-5, 0.1, log=True),
    },
)

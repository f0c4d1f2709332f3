"""FREEDOM: LightGCN on a user-item graph pruned anew each epoch, beside a frozen graph of items that look alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Batch, Sampler
from imgrec_lib.models.base import InnerProduct, ModelCard, Profile, Range, Recommender, TrainSettings, dot, look_up
from imgrec_lib.models.parts.graph import Graph, normalised, user_item_graph
from imgrec_lib.models.parts.losses import bpr
from imgrec_lib.models.parts.modality import modalities_of
from imgrec_lib.models.parts.purchases import purchase_matrix
from imgrec_lib.models.parts.settings import LARGE_BATCHES
from imgrec_lib.options import Count, CountOrNone, NotNegative, ShareBelowOne

ROWS = 1024
"""Items whose similarities to all others are in memory at a time."""


class FREEDOM(Recommender):
    """Score: s(u, i) = <e_u, e_i + h_i>.

    e is LightGCN's mean over the layers of the user-item graph, from trained id vectors x. h = S^item_layers x for the
    items alone, with S = D^-1/2 A D^-1/2 and a_ij = 1 where j is one of the `neighbours` items whose features have the
    largest cosine with those of i, i itself being the first (Zhou and Shen 2023, the frozen item-item graph): built
    once from the raw features, never learnt. With several kinds of features S is the mean of their graphs.

    In training each epoch sees the user-item graph with a share `pruning` of its edges left out, drawn without
    replacement and kept with a chance that goes with 1 / sqrt(|I_u| |U_i|), its degrees counted anew (the paper's
    degree-sensitive edge pruning). Scores for evaluation come from the whole graph.

    Loss: mean of -ln sigma(s(u,i) - s(u,j)), plus feature_weight times, for each kind of features, the same of
    <e_u, W f_i> (the paper's W f_i + b has the same differences). There is no other penalty.

    The authors' code in enoche/MMRec differs, and is not followed, in these: it trains the raw features too, as one
    more table; it keeps the item graph in a file named after `neighbours` and a rounded weight alone, so that other
    features of the same data set get the graph of the first; an item without features makes all numbers NaN. Here
    an item with features of zeros is in no one's neighbourhood and has none.

    Args:
        data: the training data; `features` are needed.
        factors: K, the size of x and of the projected features.
        layers: of the user-item graph.
        item_layers: of the graph of items.
        neighbours: of each item.
        pruning: the share of edges left out in an epoch.
        feature_weight: weight of the features' own ranking loss.
        initial_scale: x starts normal with this standard deviation.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        factors: Count = 64,
        layers: CountOrNone = 2,
        item_layers: CountOrNone = 1,
        neighbours: Count = 10,
        pruning: ShareBelowOne = 0.8,
        feature_weight: NotNegative = 1e-3,
        initial_scale: NotNegative = 0.1,
    ) -> None:
        super().__init__()
        self.layers, self.item_layers = layers, item_layers
        self.pruning, self.feature_weight = pruning, feature_weight
        self.users = nn.Parameter(torch.empty(data.n_users, factors))
        self.items = nn.Parameter(torch.empty(data.n_items, factors))
        for table in (self.users, self.items):
            nn.init.normal_(table, std=initial_scale)
        modalities = modalities_of(data, factors, bias=False)
        graphs = [normalised(nearest_items(each.features.values, neighbours)) for each in modalities.values()]
        self.modalities = nn.ModuleDict(modalities)
        self.item_graph = Graph(sum(graphs[1:], graphs[0]) / len(graphs))
        self.bought = purchase_matrix(data.interactions)
        self.graph = Graph(user_item_graph(self.bought))
        self.pruned = self.graph

    def start_epoch(self, sampler: Sampler) -> None:
        """Prune the user-item graph for the coming epoch."""
        if self.pruning:
            kept = keep_edges(self.bought, self.pruning, sampler)
            self.pruned = Graph(user_item_graph(kept)).to(self.users.device, self.users.dtype)

    def propagated(self, graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
        """e of all users, e of all items, and h of all items: (n_users, K), (n_items, K) and (n_items, K)."""
        nodes = graph.mean_of_layers(torch.cat([self.users, self.items]), self.layers)
        alike: Tensor = self.items
        for _ in range(self.item_layers):
            alike = self.item_graph(alike)
        return nodes[: len(self.users)], nodes[len(self.users) :], alike

    def loss(self, batch: Batch) -> Tensor:
        users, items, alike = self.propagated(self.pruned)
        user = look_up(users, batch.users)
        loss = _ranked(user, look_up(items + alike, batch.items))
        if self.feature_weight:
            for modality in self.modalities.values():
                loss = loss + self.feature_weight * _ranked(user, modality(batch.items))
        return loss

    @torch.no_grad()
    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        users, items, alike = self.propagated(self.graph)
        return InnerProduct(users, items + alike)

    @torch.no_grad()
    def contributions(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Split scores exactly, see `ScoreParts`: what comes by who bought the item, and by the items like it."""
        everyone, by_buyers, alike = self.propagated(self.graph)
        return {"buyers": dot(everyone[users], by_buyers[items]), "items like it": dot(everyone[users], alike[items])}


def _ranked(user: Tensor, items: Tensor) -> Tensor:
    """BPR of (B, K) users and (B, 1 + n, K) items, the positive first."""
    scores = dot(user, items)
    return bpr(scores[:, 0], scores[:, 1:])


def nearest_items(features: Tensor, k: int) -> sparse.csr_matrix:
    """The graph in which each item hears of the k items that are most alike: itself first, then by cosine.

    Args:
        features: (n_items, n_features); rows of zeros are items without features.
        k: at most so many.

    Returns:
        (n_items, n_items) float64 of ones and zeros; a row and a column of zeros for an item without features.
    """
    present = features.any(1).nonzero().squeeze(1)
    rows = F.normalize(features[present], dim=1)
    found = [(part @ rows.T).topk(min(k, len(rows))).indices for part in rows.split(ROWS)]
    nearest = torch.cat([present[:0].view(0, 1).expand(0, min(k, len(rows))), *found])
    source = present.repeat_interleave(nearest.shape[1]).numpy()
    target = present[nearest.reshape(-1)].numpy()
    shape = (len(features),) * 2
    return sparse.csr_matrix((np.ones(len(source)), (source, target)), shape=shape)


def keep_edges(bought: sparse.csr_matrix, pruning: float, sampler: Sampler) -> sparse.csr_matrix:
    """The interactions without a share of them, drawn so that those of frequent users and items go first.

    Args:
        bought: (n_users, n_items) of ones.
        pruning: the share that is left out; at least one interaction is kept.
        sampler: whose random stream is used.

    Returns:
        The same shape with floor((1 - pruning) E) of the E interactions, or one, drawn one after the other without
        replacement with a chance proportional to 1 / sqrt(|I_u| |U_i|).
    """
    edges = bought.tocoo()
    degrees = (np.asarray(bought.sum(axis)).ravel() for axis in (1, 0))
    by_user, by_item = next(degrees), next(degrees)
    weight = torch.as_tensor((by_user[edges.row] * by_item[edges.col]) ** -0.5, device=sampler.device)
    # Waiting times: drawing without replacement takes the edges in the order of an exponential time over the weight.
    uniform = torch.rand(len(weight), dtype=weight.dtype, generator=sampler.generator, device=sampler.device)
    number = max(1, int((1 - pruning) * len(weight)))
    kept = (-torch.log1p(-uniform) / weight).topk(number, largest=False).indices.cpu().numpy()
    return sparse.csr_matrix((edges.data[kept], (edges.row[kept], edges.col[kept])), shape=bought.shape)


CARD = ModelCard(
    name="freedom",
    title="FREEDOM",
    family="visual",
    needs=frozenset({"features"}),
    source="Zhou and Shen 2023, A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal "
    "Recommendation",
    fidelity="faithful",
    build=FREEDOM,
    profiles={
        "default": Profile(
            {"factors": 64, "pruning": 0.5, "feature_weight": 0.1},
            (replace(LARGE_BATCHES, learning_rate=1e-2),),
            "pruning and feature_weight chosen by validation among four pairs on a week of H&M purchases",
        ),
        "paper": Profile(
            {"factors": 64, "pruning": 0.8, "feature_weight": 1e-3},
            (TrainSettings(learning_rate=1e-3, batch_size=2048, positives_by="interaction", epochs=1000, patience=20),),
            "64 factors, Adam 1e-3, batches of 2,048, two layers and one, ten neighbours; pruning and weight are one "
            "of the pairs that the authors search",
        ),
    },
    space={
        "learning_rate": Range(1e-3, 3e-2, log=True),
        "pruning": [0.5, 0.8, 0.9],
        "feature_weight": Range(1e-4, 1.0, log=True),
    },
)

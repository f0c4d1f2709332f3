"""TwoTower: users are what they bought, items what they look like, neighbours have a say; trained by one softmax."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.data.sampler import BasketBatch, Sampler
from imgrec_lib.data.values import value_codes
from imgrec_lib.errors import InputError
from imgrec_lib.models.base import InnerProduct, ModelCard, Profile, Range, Recommender, TrainSettings, look_up
from imgrec_lib.models.item_knn import shrunk_cosine
from imgrec_lib.models.parts.neighbours import NearestPictures, Neighbours, same_group
from imgrec_lib.models.parts.purchases import BasketSum, PurchaseSum, SparseWeights, log_popularity, purchase_matrix
from imgrec_lib.models.parts.softmax import log_sum_exp
from imgrec_lib.models.parts.visual import shared_features
from imgrec_lib.options import Count, CountOrNone, NotNegative, Positive, ShareBelowOne

STRIDE = 30.0
"""Neighbours' weights are this times a parameter: Adam moves every parameter alike, and these few have far to go."""

FIRST_WEIGHTS = {"bought together": 10.0, "looks alike": 1.0, "same group": 1.0}
"""Neighbours' weights before training: a cosine of buyers is a tenth of one of pictures."""


class TwoTower(Recommender):
    """Score: s(u, i) = <x_u, z_i> + o_i + emphasis * sum over j in I_u of (a c_ji + b v_ji + g e_ji), with

        h_i = ReLU(W f_i + t),    z_i = P h_i + p_i,    o_i = <q, h_i> + o'_i,
        x_u = r + sum over j in I_u of y_j / sqrt(|I_u|),    y_j = Q h_j + q_j.

    f_i are the picture's features, each divided by its deviation after its mean was taken off. p_i, q_i and o'_i belong
    to the item's id; an item that nobody bought has none (they are 0), and neither has a new one. There is no table of
    users: whoever has bought something has a vector, at once. (Without a picture, f_i is 0.)

    The neighbours: c_ji is ItemKNN's shrunk cosine of the items' buyers; v_ji = cos^power of the two pictures' whitened
    features, for the nearest pictures of item j (`NearestPictures`); e_ji is 1 for another item of the same group. a, b
    and g are learned with all the rest.

    Loss: in each step a random half of each user's items is hidden, and I_u above is the other half. The loss is the
    mean over the hidden items of the cross-entropy of each among all items that its user does not own (`log_sum_exp`);
    their number is taken to be that of an average batch, so that no example depends on the others. For c_ji of a hidden
    item i the user's own purchases are taken out of the counts, which would otherwise give the answer away. To it come
    l2 * 1/2 (|p|^2 + |q|^2), over all items.

    `emphasis` is 1 in training. In ranking it is larger: cross-entropy gives neighbours the weight at which their rare
    large errors cost least, and the top of a list asks for more.

    The design is this package's own. Where its parts come from: two towers, DSSM (Huang et al. 2013); the hidden half
    and the softmax, Mult-DAE (Liang et al. 2018); users as sums, FISM (Kabbur et al. 2013); ids that are missing at
    random, DropoutNet (Volkovs et al. 2017); neighbours, ItemKNN (Sarwar et al. 2001).

    Args:
        data: the training data; `features` are needed.
        factors: K, the size of x and z.
        units: size of h; with 0 the towers see no pictures, and items have their ids alone.
        ids: whether items have p_i and q_i; without, an item is its picture and the offset o_i.
        id_dropout: the share of items whose p_i, and of those whose q_i, is left out of a step, at random.
        dropout: the share of the numbers in h that is left out of a step, at random.
        hidden: the share of a user's items that is hidden.
        together, looks: whether c and v take part.
        groups: whether e takes part; it needs groups.
        item_table: whether W f_i + t has a vector added for each value in the item's row of the item table: its
            category and attributes.
        shrink: see `ItemKNN`.
        nearest: how many nearest pictures an item has.
        power: to which cosines of pictures are raised.
        emphasis: see above.
        l2: penalty weight.

    Raises:
        InputError: what is asked for is not in the data.
    """

    features: Tensor
    present: Tensor
    popularity: Tensor
    known: Tensor
    mean: Tensor
    deviation: Tensor
    codes: Tensor | None

    def __init__(
        self,
        data: TrainingData,
        *,
        factors: Count = 64,
        units: CountOrNone = 150,
        ids: bool = True,
        id_dropout: ShareBelowOne = 0.5,
        dropout: ShareBelowOne = 0.0,
        hidden: float = 0.5,
        together: bool = True,
        looks: bool = True,
        groups: bool = False,
        item_table: bool = False,
        shrink: NotNegative = 10.0,
        nearest: Count = 100,
        power: Positive = 1.5,
        emphasis: NotNegative = 3.0,
        l2: NotNegative = 0.0,
    ) -> None:
        super().__init__()
        self.id_dropout, self.dropout, self.hidden, self.shrink, self.power = id_dropout, dropout, hidden, shrink, power
        self.emphasis, self.l2, self.ids = emphasis, l2, ids
        self.hidden_items = max(1.0, hidden * len(data.interactions) / data.n_users)
        self.interactions = data.interactions
        features = shared_features(data)
        self.register_buffer("features", features, persistent=False)
        self.register_buffer("present", features.any(1, keepdim=True).float(), persistent=False)
        seen = features[features.any(1)] if features.any() else torch.zeros_like(features)
        self.register_buffer("mean", seen.mean(0))
        self.register_buffer("deviation", seen.std(0, correction=0).clamp(min=1e-6))
        popularity = torch.as_tensor(data.interactions.popularity)
        self.register_buffer("popularity", popularity.float(), persistent=False)
        self.register_buffer("known", (popularity > 0).float().unsqueeze(1), persistent=False)

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Initializing zero-element tensors")  # units may be 0
            self.layer = nn.Linear(features.shape[1], units)
            self.item_layer = nn.Linear(units, factors, bias=False)
            self.purchase_layer = nn.Linear(units, factors, bias=False)
            self.offset_layer = nn.Linear(units, 1, bias=False)
        self.user = nn.Parameter(torch.zeros(factors))
        # Popularity is known beforehand: training starts from it.
        offset = log_popularity(data.interactions)
        self.offset = nn.Parameter(offset - offset.mean())
        if ids:
            self.items = nn.Parameter(torch.empty(data.n_items, factors).normal_(std=0.01))
            self.purchases = nn.Parameter(torch.empty(data.n_items, factors).normal_(std=0.01))
        self.register_buffer("codes", _codes(data) if item_table else None, persistent=False)
        if self.codes is not None:
            self.values = nn.Parameter(torch.empty(int(self.codes.max()) + 1, units).normal_(std=0.1))

        relations: dict[str, sparse.csr_matrix] = {}
        if together:
            relations["bought together"] = shrunk_cosine(data.interactions, shrink)
        self.pictures = NearestPictures(features, nearest, power) if looks else None
        if self.pictures is not None:
            relations["looks alike"] = self.pictures.among_themselves()
        if groups:
            if data.groups is None:
                raise InputError("two-tower with groups needs groups, which this dataset lacks: name a group column.")
            relations["same group"] = same_group(data.groups)
        self.relations = list(relations)
        self.neighbours = Neighbours(list(relations.values())) if relations else None
        if relations:
            self.weights = nn.Parameter(torch.tensor([FIRST_WEIGHTS[name] / STRIDE for name in relations]))

    def steps(self, sampler: Sampler, settings: TrainSettings) -> int:
        """Steps of an epoch: as many users as there are."""
        return max(1, sampler.n_users // settings.batch_size)

    def sample(self, sampler: Sampler, settings: TrainSettings) -> BasketBatch:
        """Draw the next batch: `batch_size` users."""
        return sampler.baskets(settings.batch_size, self.hidden)

    def looks(self, features: Tensor, present: Tensor) -> Tensor:
        """W f + t of pictures, without what the item table adds.

        Args:
            features: (P, n_features).
            present: (P, 1): 1 where there is a picture, 0 where the features are zeros.

        Returns:
            (P, units).
        """
        # The features are standardised by the weights, which spares a copy of them. Without a picture f is 0.
        weight = self.layer.weight / self.deviation
        centre = present * (weight @ self.mean)
        return F.linear(features, weight, self.layer.bias) - centre

    def hidden_layer(self) -> Tensor:
        """h of the whole catalogue: (n_items, units)."""
        looks = self.looks(self.features, self.present)
        if self.codes is not None:
            looks = looks + F.embedding_bag(self.codes, self.values, mode="sum")
        return F.dropout(looks.relu(), self.dropout, self.training)

    def id_vectors(self, table: Tensor) -> Tensor:
        """Rows of items that somebody bought, the others 0; in training a random part of them is 0 too."""
        kept = self.known
        if self.training and self.id_dropout:
            kept = kept * (torch.rand_like(kept) >= self.id_dropout)
        return table * kept

    def sides(self) -> tuple[Tensor, Tensor, Tensor]:
        """z, o and y of the whole catalogue: (n_items, K), (n_items,) and (n_items, K)."""
        h = self.hidden_layer()
        items, purchases = self.item_layer(h), self.purchase_layer(h)
        if self.ids:
            items, purchases = items + self.id_vectors(self.items), purchases + self.id_vectors(self.purchases)
        return items, self.offset_layer(h).squeeze(1) + self.id_offset(), purchases

    def id_offset(self) -> Tensor:
        """o' of the whole catalogue: (n_items,)."""
        return self.offset * self.known.squeeze(1)

    def loss(self, batch: BasketBatch) -> Tensor:
        items, offsets, purchases = self.sides()
        shown = batch.shown.unsqueeze(2)
        bought = look_up(purchases, batch.items.clamp(min=0)) * shown
        users = self.user + bought.sum(1) * shown.sum(1).clamp(min=1).rsqrt()
        row, column = batch.hidden.nonzero(as_tuple=True)
        target = batch.items[row, column]
        positive = (look_up(users, row) * look_up(items, target)).sum(1) + offsets[target]
        added = None
        if self.neighbours is not None:
            positive = positive + self._neighbours_of_hidden(batch, row, target)
            rows, places = batch.shown.nonzero(as_tuple=True)
            added = self.neighbours.spread(rows, batch.items[rows, places], STRIDE * self.weights)
        others = log_sum_exp(users, items, offsets, batch.items, added)
        # Each hidden item counts alike. Their number is that of an average batch, so that examples do not depend on
        # one another.
        loss = F.softplus(others[row] - positive).sum() / (len(batch.users) * self.hidden_items)
        if self.l2 and self.ids:
            loss = loss + self.l2 * 0.5 * (self.items.square().sum() + self.purchases.square().sum())
        return loss

    def _neighbours_of_hidden(self, batch: BasketBatch, row: Tensor, target: Tensor) -> Tensor:
        """What the shown items add to the score of a hidden one of the same user, who is left out of the counts.

        Args:
            batch: the batch.
            row, target: (T,) int64: the user's place in the batch, and the hidden item.

        Returns:
            (T,).
        """
        assert self.neighbours is not None
        which, column = batch.shown[row].nonzero(as_tuple=True)
        shown, hidden = batch.items[row[which], column], target[which]
        place, stored = self.neighbours.find(shown, hidden)
        which, shown, hidden = which[stored], shown[stored], hidden[stored]
        values = self.neighbours.values[place[stored]].clone()
        if "bought together" in self.relations:
            here = self.relations.index("bought together")
            both = self.popularity[shown] * self.popularity[hidden]
            together = values[:, here] * (both.sqrt() + self.shrink) - 1
            without = ((self.popularity[shown] - 1) * (self.popularity[hidden] - 1)).sqrt() + self.shrink
            # What is left of a count of one is the rounding of its cosine.
            values[:, here] = torch.where(together > 0.5, together / without, 0)
        sums = values.new_zeros(len(target))
        return sums.index_add(0, which, values @ (STRIDE * self.weights))

    def scorer(self, times: Tensor | None = None) -> TwoTowerScorer:
        return self._scorer(self.interactions)

    @torch.no_grad()
    def score_baskets(self, baskets: Interactions) -> Tensor:
        """See `Baskets`."""
        return self._scorer(baskets).block(torch.arange(baskets.n_users, device=self.known.device))

    @torch.no_grad()
    def _scorer(self, interactions: Interactions) -> TwoTowerScorer:
        items, offsets, purchases = self.sides()
        related = sum((self.related(name) for name in self.relations), _nothing(len(items)))
        return TwoTowerScorer(
            InnerProduct.with_item_offset(self._users(interactions, purchases), items, offsets),
            PurchaseSum(purchase_matrix(interactions), (SparseWeights(related.tocsc()),), torch.zeros(len(items))),
            self.pictures,
            self.ranking_weight("looks alike"),
        )

    @torch.no_grad()
    def basket_tower(self) -> BasketSum:
        """See `BasketTower`."""
        _, _, purchases = self.sides()
        start = torch.cat([self.user, self.user.new_ones(1)])  # the last number meets the item's offset
        return BasketSum(F.pad(purchases, (0, 1)), start, 0.5)

    def ranking_weight(self, name: str) -> float:
        """What a relation counts in ranking: its trained weight, with the emphasis; 0 if it takes no part."""
        if name not in self.relations:
            return 0.0
        return self.emphasis * STRIDE * float(self.weights[self.relations.index(name)])

    def related(self, name: str) -> sparse.csr_matrix:
        """What purchases add to scores by one relation, emphasis included: (n_items, n_items)."""
        assert self.neighbours is not None
        weights = torch.tensor([self.ranking_weight(name) * (name == each) for each in self.relations])
        return self.neighbours.weighted(weights.to(self.weights))

    def _users(self, interactions: Interactions, purchases: Tensor) -> Tensor:
        """x of all users: (n_users, K)."""
        items, starts = (
            torch.as_tensor(each, device=purchases.device) for each in (interactions.items, interactions.indptr)
        )
        return self._users_of(purchases, items, starts)

    def _users_of(self, purchases: Tensor, items: Tensor, starts: Tensor) -> Tensor:
        """x of users who have the rows `items` of `purchases`, the user after u beginning at starts[u + 1]."""
        sums = F.embedding_bag(items, purchases, starts, mode="sum", include_last_offset=True)
        return self.user + sums * starts.diff().clamp(min=1).rsqrt().unsqueeze(1)

    @torch.no_grad()
    def contributions(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Split scores exactly, see `ScoreParts`."""
        h = self.hidden_layer()
        vectors, offsets, purchases = self.sides()
        user, seen = self._users(self.interactions, purchases)[users], self.item_layer(h)
        what = "picture" if self.codes is None else "picture and item table"
        parts = {what: torch.einsum("bk,bck->bc", user, seen[items])}
        if self.ids:
            parts["id"] = torch.einsum("bk,bck->bc", user, (vectors - seen)[items])
        parts[f"{what}: offset"] = self.offset_layer(h).squeeze(1)[items]
        parts["id: offset"] = self.id_offset()[items]
        for name in self.relations:
            weights = (SparseWeights(self.related(name).tocsc()),)
            nothing = torch.zeros(len(offsets))
            parts[name] = PurchaseSum(purchase_matrix(self.interactions), weights, nothing).pairs(users, items)
        return parts

    @torch.no_grad()
    def purchase_similarity(self, user: int, items: Tensor) -> Tensor:
        """See `PurchaseParts`; the score is their sum and what all users have in common, <r, z_i> + o_i."""
        vectors, _, purchases = self.sides()
        bought = self.interactions.of(user)
        similarity = vectors[items] @ purchases[torch.as_tensor(bought)].T / max(1, len(bought)) ** 0.5
        for name in self.relations:
            similarity += torch.from_numpy(self.related(name)[bought][:, items.numpy()].toarray().T)
        return similarity

    @torch.no_grad()
    def embed_pictures(self, pixels: Tensor, features: Tensor) -> Tensor:
        """See `PictureEmbedding`: a new item is one that nobody bought; it has no id and no place in the item table."""
        h = self.looks(features, features.any(1, keepdim=True)).relu()
        return torch.cat([self.item_layer(h), self.offset_layer(h), features], 1)


def _codes(data: TrainingData) -> Tensor:
    """Each item's values in the item table, numbered over all columns: (n_items, columns) int64.

    Raises:
        InputError: the item table says nothing.
    """
    columns: list[pd.Series | np.ndarray] = [] if data.categories is None else [data.categories]
    columns += [] if data.attributes is None else [data.attributes[name] for name in data.attributes]
    if not columns:
        raise InputError("two-tower with item_table needs a category or attributes in the item table: add a column.")
    return torch.as_tensor(value_codes(columns))


def _nothing(n: int) -> sparse.csr_matrix:
    return sparse.csr_matrix((n, n), dtype=np.float32)


@dataclass(frozen=True)
class TwoTowerScorer:
    """An inner product, and what a user's purchases add to the items that they are related to.

    Attributes:
        towers: users and items, offsets included.
        neighbours: what purchases add.
        pictures: finds the neighbours of new pictures; None if looks do not take part.
        weight: of a neighbour by its picture.
    """

    towers: InnerProduct
    neighbours: PurchaseSum
    pictures: NearestPictures | None
    weight: float

    def block(self, users: Tensor) -> Tensor:
        return self.tile(users, slice(None))

    def tile(self, users: Tensor, items: slice, out: Tensor | None = None) -> Tensor:
        scores = self.neighbours.tile(users, items, out)
        return scores.addmm_(self.towers.users[users], self.towers.items[items].T)

    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        return self.neighbours.pairs(users, items) + self.towers.pairs(users, items)

    def extended(self, rows: Tensor) -> TwoTowerScorer:
        width = self.towers.items.shape[1]
        (known,) = self.neighbours.weights
        assert isinstance(known, SparseWeights)
        if self.pictures is None:
            near = sparse.csr_matrix((known.values.shape[0], len(rows)), dtype=np.float32)
        else:
            near = self.pictures.to_new(rows[:, width:]) * self.weight
        related = SparseWeights(sparse.hstack([known.values, near], format="csc"))
        offset = torch.cat([self.neighbours.offset, self.neighbours.offset.new_zeros(len(rows))])
        neighbours = PurchaseSum(self.neighbours.purchases, (related,), offset)
        return replace(self, towers=self.towers.extended(rows[:, :width]), neighbours=neighbours)


SETTINGS = TrainSettings(
    learning_rate=3e-3, schedule="linear", batch_size=1024, epochs=20, evaluate_every=4, patience=0, choose_by="ndcg@10"
)

CARD = ModelCard(
    name="two-tower",
    title="TwoTower",
    family="visual",
    needs=frozenset({"features"}),
    optional=frozenset({"categories", "groups", "attributes"}),
    source="a design of this package; its parts are named in the class's docstring",
    fidelity="own",
    build=TwoTower,
    profiles={
        "default": Profile(
            {"dropout": 0.3},
            (SETTINGS,),
            "chosen by validation NDCG@10 on a week of H&M purchases",
        ),
        "item-table": Profile(
            {"dropout": 0.3, "groups": True, "item_table": True},
            (SETTINGS,),
            "the same with all that the item table says",
        ),
    },
    space={
        "factors": [64, 128],
        "learning_rate": Range(1e-3, 1e-2, log=True),
        "dropout": [0.0, 0.3, 0.5],
        "emphasis": [1.0, 3.0, 10.0],
    },
)

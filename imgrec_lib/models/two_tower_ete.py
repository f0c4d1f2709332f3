"""TwoTower end to end: users are what they bought, items their pictures, and the network that sees them learns, too."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import BasketBatch, ItemBasketBatch, Sampler
from imgrec_lib.features import build_backbone, extract_features
from imgrec_lib.models.base import ModelCard, ParameterGroup, Profile, Range, TrainSettings, distinct, look_up
from imgrec_lib.models.parts.encoder import TrainedEncoder
from imgrec_lib.models.parts.softmax import log_sum_exp
from imgrec_lib.models.two_tower import SETTINGS, TwoTower
from imgrec_lib.options import Count, CountOrNone, NotNegative, ShareBelowOne


class TwoTowerEtE(TrainedEncoder, TwoTower):
    """TwoTower without ids and neighbours, on features f_i = g(picture of i) of a network g whose tail is trained.

    Score: s(u, i) = <x_u, z_i> + o_i, see `TwoTower`. What an item is, beside how often it was bought, is its picture.

    Phase 1 is TwoTower's training; f_i are fixed. Phase 2 starts from its best weights. A step draws `batch_size`
    items, and everybody who bought one of them. These purchases are hidden, x_u is made of the others, and the loss is
    the mean over users of the sum over their hidden items of the cross-entropy of each among the items of the batch
    that the user does not own. Each of the S items stands for n_items / S, so that the sums estimate those over the
    catalogue. z_i and o_i of the batch's items are made of its pictures, which pass the tail once and train it; what
    was bought is seen as the tail saw it when the epoch began.

    `encoder_rate` = 0 is the frozen twin: all of phase 2 is the same but for the tail, which stays as it was. Only a
    comparison with it tells what is owed to the network from what is owed to more passes of another loss.

    Args:
        data: the training data, with images.
        factors, units, dropout, hidden: see `TwoTower`.
        encoder_rate, encoder_decay: learning rate and weight decay of the tail.
        backbone, weights, pooling, size, cut, keep: see `ImgRecEtE`.

    Raises:
        InputError: an unknown option, or see `build_backbone`.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        factors: Count = 64,
        units: Count = 150,
        dropout: ShareBelowOne = 0.3,
        hidden: float = 0.5,
        encoder_rate: NotNegative = 6e-4,
        encoder_decay: NotNegative = 0.01,
        backbone: str = "efficientnet-lite0",
        weights: str = "default",
        pooling: str = "",
        size: CountOrNone = 0,
        cut: str = "",
        keep: str = "disk",
    ) -> None:
        assert data.images is not None
        network = build_backbone(backbone, weights=weights, pooling=pooling or None, size=size or None, cut=cut)
        features = extract_features(
            data.images, backbone=backbone, weights=weights, pooling=pooling or None, size=size or None
        )
        super().__init__(
            replace(data, features=features.values),
            factors=factors,
            units=units,
            dropout=dropout,
            hidden=hidden,
            ids=False,
            together=False,
            looks=False,
        )
        # Who has no picture shows a white one, and a feature that was always the same may come to life.
        self.present.fill_(1)
        self.deviation.clamp_(min=0.1 * float(self.deviation.mean()))
        self.encoder_rate, self.encoder_decay = encoder_rate, encoder_decay
        self.take_backbone(network, data.images, keep=keep)
        self.draws_items = False
        self._made_by = self._tail_weights()

    def start_phase(self, phase: int) -> Iterable[nn.Parameter]:
        """Phase 0 trains the towers, any later one the tail, too."""
        self.draws_items = phase > 0
        self.free_tail(self.draws_items and self.encoder_rate > 0)
        return super().start_phase(phase)

    def parameter_groups(self) -> Iterable[ParameterGroup]:
        if self.end_to_end:
            yield ParameterGroup(self.backbone.tail_parameters(), self.encoder_rate, self.encoder_decay)

    def steps(self, sampler: Sampler, settings: TrainSettings) -> int:
        """Steps of an epoch; of items, about one pass over the catalogue."""
        if self.draws_items:
            return max(1, sampler.n_items // settings.batch_size)
        return super().steps(sampler, settings)

    def sample(self, sampler: Sampler, settings: TrainSettings) -> BasketBatch | ItemBasketBatch:  # type: ignore[override]
        """`batch_size` users in phase 1, items in phase 2."""
        if self.draws_items:
            return sampler.item_baskets(settings.batch_size)
        return super().sample(sampler, settings)

    def start_epoch(self, sampler: Sampler) -> None:
        self._follow_tail()

    def loss(self, batch: BasketBatch | ItemBasketBatch) -> Tensor:
        if isinstance(batch, BasketBatch):
            return super().loss(batch)
        items = batch.items[0]
        seen = self.pooled(items) if self.end_to_end else look_up(self.features, items)
        h = self._hidden_layer_of(items, seen)
        vectors, offsets = self.item_layer(h), self.offset_layer(h).squeeze(1) + self.id_offset()[items]
        shown = batch.shown
        others, place = distinct(batch.baskets[shown])
        bought = self.purchase_layer(self._hidden_layer_of(others, look_up(self.features, others)))
        starts = F.pad(shown.sum(1).cumsum(0), (1, 0))
        users = self._users_of(bought, place, starts)
        row, column = (batch.places >= 0).nonzero(as_tuple=True)
        target = batch.places[row, column]
        positive = (look_up(users, row) * look_up(vectors, target)).sum(1) + offsets[target]
        share = math.log(len(self.features) / len(items))
        sums = log_sum_exp(users, vectors, offsets + share, batch.places)
        return F.softplus(sums[row] - positive).sum() / max(1, len(batch.users))  # it may be that nobody has any

    def hidden_layer(self) -> Tensor:
        if not self.training:
            self._follow_tail()
        return super().hidden_layer()

    @torch.no_grad()
    def embed_pictures(self, pixels: Tensor, features: Tensor) -> Tensor:
        return super().embed_pictures(pixels, self.backbone(pixels))

    def _hidden_layer_of(self, items: Tensor, features: Tensor) -> Tensor:
        """h of some items, from their features."""
        return F.dropout(self.looks(features, self.present[items]).relu(), self.dropout, self.training)

    def _tail_weights(self) -> list[Tensor]:
        return [value.detach().clone() for value in (*self.tail.state_dict().values(), *self.tail_weights.values())]

    @torch.no_grad()
    def _follow_tail(self) -> None:
        """See the catalogue anew, where the tail is no longer the one by which it was seen."""
        now = self._tail_weights()
        if not all(torch.equal(then.to(value), value) for then, value in zip(self._made_by, now, strict=True)):
            every = torch.arange(len(self.features), device=self.features.device)
            self.features = torch.cat([self.pooled(part) for part in every.split(512)])
            self._made_by = now


CARD = ModelCard(
    name="two-tower-ete",
    title="TwoTower-EtE",
    family="end-to-end",
    needs=frozenset({"images"}),
    source="a design of this package: TwoTower, whose pictures are seen by a network that learns",
    fidelity="own",
    build=TwoTowerEtE,
    profiles={
        "default": Profile(
            {"cut": "1"},
            (
                SETTINGS,
                replace(SETTINGS, learning_rate=5e-4, warm_up=20, batch_size=512, epochs=12, evaluate_every=2),
            ),
            "phase 1 as TwoTower's default; phase 2 by validation on a week of H&M purchases, small pictures",
        ),
    },
    space={
        "factors": [64, 128],
        "encoder_rate": Range(1e-5, 1e-3, log=True),
        "phase2_learning_rate": Range(1e-4, 3e-3, log=True),
    },
)

"""ImgRec-EtE: like ImgRec-FT, but in a second phase the last layers of the network that sees the pictures learn too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.images import tell_of_enlargement
from imgrec_lib.data.sampler import Batch, ItemBatch, Sampler
from imgrec_lib.errors import unknown_name
from imgrec_lib.features import build_backbone
from imgrec_lib.models.base import ModelCard, Profile, Range, TrainSettings, look_up
from imgrec_lib.models.parts.encoder import TrainedEncoder
from imgrec_lib.models.parts.imgrec import CODE, CODE_MEN, KERAS, PAPER, SOURCE, ImgRec
from imgrec_lib.models.parts.layers import feature_layer
from imgrec_lib.models.parts.losses import item_batch_cross_entropy
from imgrec_lib.models.parts.settings import LARGE_BATCHES
from imgrec_lib.options import Count, CountOrNone, NotNegative

BATCHES = ("items", "interactions")


class ImgRecEtE(TrainedEncoder, ImgRec):
    """ImgRec with phi_i = ReLU(W_phi f_i + b_phi), f_i the backbone's pooled output (Elsayed et al. 2022, variant EtE).

    Phase 1 trains the recommender on fixed features; it is ImgRec-FT. Phase 2 starts from its best weights and also
    trains the backbone's tail, in ResNet50 the last 50 of Keras' 176 layers (`build_backbone`). The trunk
    before it stays in inference mode for ever and looks at each picture once (`trunk_activations`).

    In phase 2 a step looks at its pictures, each of them once unless `repeats`. What differs is which pictures:

    - "interactions", as in the paper: `TrainSettings.batch_size` positives with their negatives. An epoch looks at up
      to 1 + negatives pictures for each training interaction.
    - "items": `batch_size` items with all their training interactions and negatives (`Sampler.item_batch`), a loss of
      the same expectation. An epoch looks at about as many pictures as there are items.

    A checkpoint holds tables, layer and tail; the trunk is that of the backbone's weights.

    Args:
        data: the training data, with images.
        factors: K.
        units: width of the layer.
        l2, l2_layer: see `ImgRec`; of phase 1.
        l2_users: see `ImgRec`; of both phases.
        phase2_l2: weight of `l2` and `l2_layer` in phase 2. The tail has none.
        backbone, weights: see `build_backbone`.
        pooling: "avg", "max" or "own"; empty: what the weights are used with.
        cut: where the tail begins: a block's name, or how many of the last blocks it has; empty: see `build_backbone`.
        size: height and width of the network's input, in pixels; 0: the backbone's own.
        keep: where the activations at the cut are kept: "disk", "memory" or "recompute", see `trunk_activations`.
        batches: what phase 2 draws, "items" or "interactions".
        repeats: whether a picture that occurs several times in a batch passes the tail as often, as in the paper's
            Keras model, instead of once. With `batch_statistics` it then counts as often in the statistics, and the
            gradients differ: by 1 % to a half in catalogues so small that most of a batch repeats.
        batch_statistics: whether the tail's batch norms, as in the paper's Keras model, use the statistics of the
            pictures in the batch while training, and in evaluation moving averages of them. These start as
            the weights file has them and follow by 1 % a step, so the first hundred steps evaluate a network that is
            not the trained one. False keeps the file's in both: no lag, and the loss of an item batch is then exact.
        users_per_batch: so many users, drawn anew each step, give the negatives of an item batch; 0: all. Needed only
            where (users x items of a batch) numbers are too many for the device.

    Raises:
        InputError: an unknown option, or see `build_backbone`.
    """

    features: Tensor | None

    def __init__(
        self,
        data: TrainingData,
        *,
        factors: Count = 64,
        units: Count = 150,
        l2: NotNegative = 0.0,
        l2_users: NotNegative = 0.0,
        l2_layer: NotNegative = 0.0,
        phase2_l2: NotNegative = 0.0,
        backbone: str = "efficientnet-lite0",
        weights: str = "default",
        pooling: str = "",
        size: CountOrNone = 0,
        cut: str = "",
        keep: str = "disk",
        batches: str = "items",
        repeats: bool = False,
        batch_statistics: bool = True,
        users_per_batch: CountOrNone = 0,
    ) -> None:
        if batches not in BATCHES:
            raise unknown_name("kind of batches", batches, BATCHES)
        super().__init__(data, units, factors=factors, l2=l2, l2_users=l2_users, l2_layer=l2_layer, crelu=False)
        network = build_backbone(backbone, weights=weights, pooling=pooling or None, size=size or None, cut=cut)
        assert data.images is not None
        tell_of_enlargement(data.images, network.size)
        self.layer = feature_layer(network.n_features, units)
        self.take_backbone(network, data.images, keep=keep, batch_statistics=batch_statistics)
        self.batches, self.repeats, self.users_per_batch = batches, repeats, users_per_batch
        self._penalties = ((l2, l2_layer), (phase2_l2, phase2_l2))
        # The pooled features of the whole catalogue while the tail is fixed; computed when first asked for.
        self.register_buffer("features", None, persistent=False)
        self.register_load_state_dict_post_hook(_forget_features)

    def looked_at(self, items: Tensor) -> tuple[Tensor, Tensor]:
        if self.repeats and self.training and self.end_to_end:
            return items.flatten(), torch.arange(items.numel(), device=items.device).view(items.shape)
        return super().looked_at(items)

    def visual(self, items: Tensor) -> Tensor:
        if self.end_to_end:
            different, place = self.looked_at(items)
            pooled = self.pooled(different)[place]
        else:
            if self.features is None:
                with torch.no_grad():
                    self.features = self.pooled(torch.arange(len(self.item_table), device=items.device))
            pooled = look_up(self.features, items)
        return torch.relu(self.layer(pooled))

    def visual_of(self, pixels: Tensor, features: Tensor) -> Tensor:
        return torch.relu(self.layer(self.backbone(pixels)))

    def layer_kernels(self) -> list[Tensor]:
        return [self.layer.weight]

    def start_phase(self, phase: int) -> Iterable[nn.Parameter]:
        """Phase 0 freezes the tail, any later one trains it."""
        self.features = None
        self.free_tail(phase > 0)
        self.l2, self.l2_layer = self._penalties[min(phase, 1)]
        return super().start_phase(phase)

    def _draws_items(self) -> bool:
        return self.end_to_end and self.batches == "items"

    def steps(self, sampler: Sampler, settings: TrainSettings) -> int:
        """Steps of an epoch; with item batches, about one pass over the catalogue."""
        if self._draws_items():
            return max(1, sampler.n_items // settings.batch_size)
        return super().steps(sampler, settings)

    def sample(self, sampler: Sampler, settings: TrainSettings) -> Batch | ItemBatch:
        """A `Batch`, or an `ItemBatch` of `batch_size` items in phase 2 with batches="items"."""
        if self._draws_items():
            return sampler.item_batch(
                settings.batch_size, settings.negatives, settings.positives_by, self.users_per_batch
            )
        return sampler.triples(settings.batch_size, settings.negatives, settings.positives_by)

    def shard(self, batch: Any, rank: int, world_size: int) -> tuple[Any, float]:
        """Item batches are dealt out by item: the part holds its items' positives, with all the users."""
        if not isinstance(batch, ItemBatch):
            return super().shard(batch, rank, world_size)
        mine = torch.arange(len(batch.items), device=batch.items.device).tensor_split(world_size)[rank]
        first, end = mine[0], mine[-1] + 1
        positives = (batch.places >= first) & (batch.places < end)
        owned = (batch.owned_places >= first) & (batch.owned_places < end)
        part = ItemBatch(
            items=batch.items[mine],
            users=batch.users[positives],
            places=batch.places[positives] - first,
            positive_weights=world_size * batch.positive_weights[positives],
            others=batch.others,
            negative_weights=world_size * batch.negative_weights,
            owned_users=batch.owned_users[owned],
            owned_places=batch.owned_places[owned] - first,
        )
        return part, 1 / world_size

    def ranking(self, batch: Batch | ItemBatch) -> Tensor:
        if isinstance(batch, Batch):
            return super().ranking(batch)
        items = self.embed_items(batch.items)
        positive = (self.embed_users(batch.users) * items[batch.places]).sum(1)
        return item_batch_cross_entropy(positive, self.embed_users(batch.others) @ items.T, batch)


def _forget_features(model: nn.Module, _: Any) -> None:
    """Drop the catalogue's features, which the former weights had made, once others are loaded."""
    assert isinstance(model, ImgRecEtE)
    model.features = None


CARD = ModelCard(
    name="imgrec-ete",
    title="ImgRec-EtE",
    family="end-to-end",
    needs=frozenset({"images"}),
    source=SOURCE,
    fidelity="faithful",
    build=ImgRecEtE,
    profiles={
        "default": Profile(
            {"factors": 64, "l2_users": 1e-6, "batch_statistics": False},
            (
                replace(LARGE_BATCHES, learning_rate=1e-2, batch_size=16384),
                replace(LARGE_BATCHES, learning_rate=1e-4, batch_size=64, epochs=30, patience=3),
            ),
            "phase 2 draws 64 items a step; batch norms keep their statistics; the backbone is EfficientNet-Lite0",
        ),
        "paper": Profile(
            {
                "factors": 20,
                "l2": 1e-6,
                "l2_layer": 1e-6,
                "phase2_l2": 5e-5,
                "pooling": "max",
                "batches": "interactions",
                "repeats": True,
            },
            (
                PAPER,
                replace(PAPER, learning_rate=5e-5, batch_size=256, epochs=130),
            ),
            "the paper's text: K 20, 150 units, L2 1e-6 then 5e-5, two phases, each until convergence; maximum pooling "
            "as in the published graph; the paper's network is backbone='resnet50'",
        ),
        "code": Profile(
            {"factors": 30, "pooling": "max", "size": 244, "batches": "interactions", "repeats": True},
            (
                CODE,
                KERAS,
            ),
            "the scripts for Amazon Fashion: K 30, 150 units, no effective L2, 244 px, maximum pooling, the weights of "
            "the last epoch; the chaining of the phases is the paper's; their network is backbone='resnet50'",
        ),
        "code-men": Profile(
            {"factors": 20, "pooling": "max", "size": 244, "batches": "interactions", "repeats": True},
            (
                CODE_MEN,
                replace(KERAS, epochs=120),
            ),
            "the scripts for Amazon Men: K 20 without CReLU, else as `code`, after the first phase of Men's FT",
        ),
    },
    space={
        "factors": [32, 64, 128],
        "l2_users": Range(1e-8, 1e-3, log=True),
        "phase1_learning_rate": Range(1e-3, 3e-2, log=True),
        "phase2_learning_rate": Range(1e-5, 1e-3, log=True),
    },
)

